"""Multi-label sets in the COCO format: one JSON of instances, one folder of images; no COCO package needed.

Labels are multi-hot over the categories sorted by id. Crowd regions and tiny instances count; an image without
instances stays, with an all-zero row. ``coco:ANNOTATIONS.json:images=FOLDER`` reads a set of your own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import card_name, describe, split_of, split_table
from .fetch import missing
from .images import ImageDataset
from .root import data_root


@register.dataset
def coco(
    *, variant: str | None = None, card: dict | None = None, split: str | None = None, images: str | None = None,
    resolution: str | None = None, preprocess: str | None = None, prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """Images with multi-hot labels, by an annotation file or by a card that says ``annotations`` and ``images``.

    Args:
        split: one of the card's splits; default the card's own.
        images: the folder of the images; default the card's, else the annotation file's folder.
        resolution: side in pixels; default the card's, else 224.
        preprocess: crop, stretch, clip or native; default the card's, else crop, which may cut objects off.
        prompts: a prompt set of the card.
        check: refuse data whose counts are not the card's.

    Raises:
        UserError: a missing or malformed annotation file.
    """
    split = split_of(card, split)
    if variant:
        path = Path(variant).expanduser()
        folder = Path(images).expanduser() if images else path.parent
    elif card:
        missing(card, split)
        table = {**card, **split_table(card, split)}
        path = data_root() / table["annotations"]
        folder = Path(images).expanduser() if images else data_root() / table["images"]
    else:
        raise UserError("dataset 'coco' needs an annotation file: coco:ANNOTATIONS.json:images=FOLDER")
    categories, files, labels = read_instances(path)
    name = card_name(card) if card else path.stem
    prefix = f"{name}/{split}" if split else name
    paths = [folder / file for file in files]
    return describe(
        card, name=name, split=split, keys=categories, labels=labels, ids=[f"{prefix}/{file}" for file in files],
        picture=lambda i: Image.open(paths[i]), content=lambda i: paths[i].read_bytes(),
        where=lambda i: str(paths[i]), place=str(path), facts=hashlib.sha256("\n".join(files).encode()).hexdigest(),
        resolution=resolution, preprocess=preprocess, prompts=prompts, check=check,
    )  # fmt: skip


def read_instances(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Category names by ascending id, image files by ascending image id, multi-hot labels (n, C) float32.

    Raises:
        UserError: if the file is missing, no JSON, or an annotation names an unknown image or category.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = dict(sorted((int(row["id"]), str(row["name"])) for row in content["categories"]))
        images = dict(sorted((int(row["id"]), str(row["file_name"])) for row in content["images"]))
        pairs = [(int(row["image_id"]), int(row["category_id"])) for row in content["annotations"]]
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"annotation file '{path}' is not in the COCO instances format: no {error}") from None
    except ValueError as error:
        raise UserError(f"annotation file '{path}' is not JSON: {error}") from None
    row = {key: place for place, key in enumerate(images)}
    column = {key: place for place, key in enumerate(categories)}
    labels = np.zeros((len(row), len(column)), dtype=np.float32)
    for image, category in pairs:
        if image not in row or category not in column:
            raise UserError(f"annotation file '{path}' lacks image {image} or category {category} of an annotation")
        labels[row[image], column[category]] = 1
    return list(categories.values()), list(images.values()), labels
