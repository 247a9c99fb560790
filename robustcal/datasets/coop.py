"""The splits of CoOp (Zhou et al. 2022): ``split_zhou_*.json`` beside a set's images, which prompt tuning evaluates on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import Asked, Card, card_name, describe, split_of
from .fetch import missing
from .images import ImageDataset
from .root import data_root

SPLITS = ("train", "val", "test")


@register.dataset
def coop(
    *, card: Card | None = None, split: str | None = None, resolution: str | None = None, preprocess: str | None = None,
    prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """A set by a card with the `folder` of its images and the `index` of its splits: [file, label, class name] by split.

    Args:
        split: train, val or test; default the card's.
        resolution, preprocess, prompts, check: as for ``folder``.

    Raises:
        UserError: no card, no such file, or an index that is not of this form.
    """
    if card is None:
        raise UserError("dataset 'coop' is read through a card, such as coop-dtd; see: robustcal ls datasets")
    chosen, root = str(split_of(card, split)), data_root()
    index, images = root / card["index"], root / card["folder"]
    missing(card, split)
    rows, keys = read_index(index, chosen)
    name = card_name(card)
    files = [images / file for file, _ in rows]
    ids = [f"{name}/{chosen}/{file}" for file, _ in rows]
    facts = hashlib.sha256("\n".join(f"{file} {label}" for file, label in rows).encode()).hexdigest()
    return describe(
        card, Asked(resolution, preprocess, prompts, check), name=name, split=chosen, keys=keys,
        labels=np.array([label for _, label in rows], dtype=np.int64), ids=ids, picture=lambda i: Image.open(files[i]),
        content=lambda i: files[i].read_bytes(), where=lambda i: str(files[i]), place=str(index), facts=facts,
    )  # fmt: skip


def read_index(index: Path, split: str) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, label) of one split, and the class names by label, which all splits share.

    Raises:
        UserError: naming what is not as it must be.
    """
    try:
        found: Any = json.loads(index.read_text())
        names: dict[int, str] = {}
        for part in SPLITS:
            for file, label, name in found[part]:
                if not (isinstance(file, str) and type(label) is int and isinstance(name, str)):
                    raise ValueError(f"an entry of '{part}' is not [file, label, class name]")
                if names.setdefault(label, name) != name:
                    raise ValueError(f"class {label} is both '{names[label]}' and '{name}'")
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"its {len(names)} labels are not 0 to {len(names) - 1}")
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"'{index}' is no index of CoOp's splits: {error}") from None
    rows = [(file, label) for file, label, _ in found[split]]
    above = next((file for file, _ in rows if file.startswith("/") or ".." in file.split("/")), None)
    if above is not None:
        raise UserError(f"'{index}' names '{above}', which lies outside the images")
    return rows, [names[label] for label in range(len(names))]
