"""Datasets that torchvision knows how to unpack and index; each is a card that names the torchvision class.

Layout, labels and class keys come from torchvision; names, prompts, size and recipe from the card. What is missing
below the data root is downloaded by torchvision when the card's host answers; ``ROBUSTCAL_OFFLINE=1`` switches that
off.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import Asked, Card, card_name, describe, split_of, split_table
from .fetch import missing, one_at_a_time
from .images import ImageDataset
from .presence import advice
from .root import data_root


@register.dataset(name="torchvision")
def from_torchvision(
    *, card: Card | None = None, split: str | None = None, resolution: str | None = None,
    preprocess: str | None = None, prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """The dataset of a card whose ``class`` is one of `torchvision.datasets`.

    Args:
        split: one of the card's splits; default the card's own.
        resolution: side in pixels, or ``native``; default the card's.
        preprocess: crop, stretch, clip or native; default the card's.
        prompts: a prompt set of the card.
        check: refuse data whose counts are not the card's.

    Raises:
        UserError: the data are missing and cannot be fetched, are damaged, or are not what the card describes.
    """
    if not card or "class" not in card:
        raise UserError("the source 'torchvision' works through cards, such as cifar10; see: robustcal ls datasets")
    split = split_of(card, split)
    held = open_or_fetch(card, split)
    files, labels = files_of(held), labels_of(held, card, split)
    order = sorted(range(len(labels)), key=files.__getitem__) if card.get("sort") else range(len(labels))
    name, root = card_name(card), data_root()
    names = [os.path.relpath(files[i], root) for i in order] if files else []

    def picture(index: int) -> Image.Image:
        return Image.open(files[order[index]]) if files else held[order[index]][0]

    def where(index: int) -> str:
        return files[order[index]] if files else f"{root}: {card['class']} {split}, number {order[index]}"

    def content(index: int) -> bytes:
        return Path(files[order[index]]).read_bytes() if files else held[order[index]][0].tobytes()

    return describe(
        card, Asked(resolution, preprocess, prompts, check), name=name, split=split, keys=keys_of(held, card),
        labels=labels[list(order)],
        ids=[f"{name}/{split}/{index:05d}" for index in range(len(labels))],
        picture=picture, content=content, where=where, place=str(root),
        facts=hashlib.sha256("\n".join(names).encode()).hexdigest(),
    )  # fmt: skip


def open_or_fetch(card: Card, split: str | None) -> Any:
    """The torchvision dataset of a card's split; fetched first if it is missing and can be fetched."""
    if not missing(card, split):
        return _open(card, split, data_root(), download=False)
    with one_at_a_time():
        return _open(card, split, data_root(), download=True)


def _open(card: Card, split: str | None, root: Path, download: bool) -> Any:
    from torchvision import datasets

    options = {**card.get("options", {}), **split_table(card, split).get("options", {})}
    if download:
        options["download"] = True
    try:
        return getattr(datasets, card["class"])(str(root), **options)
    except ImportError as error:
        raise UserError(f"dataset '{card_name(card)}' needs a package that is not installed: {error}") from None
    except Exception as error:  # torchvision has no error of its own for damaged files: readers raise what they like
        reason = " ".join(str(error).split()).removesuffix(". You can use download=True to download it")
        reason = reason or type(error).__name__
        trouble = f"dataset '{card_name(card)}' in {root} is damaged or incomplete ({reason})"
        raise UserError(f"{trouble}; to replace it, {advice(card)}") from None


def labels_of(held: Any, card: Card, split: str | None) -> np.ndarray:
    """Class indices of a torchvision dataset (n,) int64, found without decoding an image."""
    stored = split_table(card, split).get("labels_h5")
    if stored:
        import h5py

        with h5py.File(data_root() / stored) as file:
            return np.asarray(file["y"][()], dtype=np.int64).reshape(-1)
    for attribute in ("targets", "labels", "_labels", "y"):
        if hasattr(held, attribute):
            return np.asarray(getattr(held, attribute), dtype=np.int64)
    return np.array([label for _, label in held._samples], dtype=np.int64)


def keys_of(held: Any, card: Card) -> list[str]:
    """The classes as torchvision names them; "0", "1", ... where it has no names."""
    keys = getattr(held, "classes", None) or getattr(held, "categories", None)
    return [str(key) for key in keys] if keys else [str(index) for index in range(card["classes"])]


def files_of(held: Any) -> list[str]:
    """The image file of every sample, where there is one file per image; else an empty list."""
    for attribute in ("_image_files", "_images"):
        if hasattr(held, attribute):
            return [str(path) for path in getattr(held, attribute)]
    for attribute in ("samples", "_samples"):
        if hasattr(held, attribute):
            return [str(path) for path, _ in getattr(held, attribute)]
    if hasattr(held, "categories"):  # Caltech-101 and Caltech-256 build each name when they need it
        wide = "256_ObjectCategories" in os.listdir(held.root)
        folder = Path(held.root) / ("256_ObjectCategories" if wide else "101_ObjectCategories")
        stem = "{label:03d}_{number:04d}.jpg" if wide else "image_{number:04d}.jpg"
        rows = zip(held.y, held.index)
        return [str(folder / held.categories[y] / stem.format(label=y + 1, number=n)) for y, n in rows]
    return []
