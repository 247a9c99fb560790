"""Multi-label sets in the COCO format: one JSON of instances, one folder of images; no COCO package needed.

Labels are multi-hot over the categories sorted by id. Crowd regions and tiny instances count; an image without
instances stays, with an all-zero row. ``coco:ANNOTATIONS.json:images=FOLDER`` reads a set of your own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import Asked, Card, card_name, describe, split_of, split_table
from .fetch import missing
from .images import ImageDataset
from .lines import LeftOut, whole_number
from .root import data_root, own_path
from .tree import hidden, is_image


@register.dataset
def coco(
    *, variant: str | None = None, card: Card | None = None, split: str | None = None, images: str | None = None,
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
        path = own_path(variant)
        folder = Path(images).expanduser() if images else path.parent
    elif card:
        missing(card, split)
        table = {**card, **split_table(card, split)}
        path = data_root() / table["annotations"]
        folder = Path(images).expanduser() if images else data_root() / table["images"]
    else:
        raise UserError("dataset 'coco' needs an annotation file: coco:ANNOTATIONS.json:images=FOLDER")
    left = LeftOut()
    categories, files, labels = read_instances(path, left)
    listed = set(files)
    for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if is_image(file) and not hidden(file) and file not in listed:
            left.add("images that the annotation file does not list, not read", file)
    name = card_name(card) if card else path.stem
    prefix = f"{name}/{split}" if split else name
    paths = [folder / file for file in files]
    return describe(
        card, Asked(resolution, preprocess, prompts, check), name=name, split=split, keys=categories, labels=labels,
        ids=[f"{prefix}/{file}" for file in files], picture=lambda i: Image.open(paths[i]),
        content=lambda i: paths[i].read_bytes(), where=lambda i: str(paths[i]), place=str(path),
        facts=hashlib.sha256("\n".join(files).encode()).hexdigest(), notes=left.notes(),
    )  # fmt: skip


def read_instances(path: Path, left: LeftOut) -> tuple[list[str], list[str], np.ndarray]:
    """Category names by ascending id, image files by ascending image id, multi-hot labels (n, C) float32.

    Args:
        left: counts categories that no image has, and those that stand for a group of others.

    Raises:
        UserError: if the file is missing, no JSON, gives one id or file to two things, or an annotation names an
            unknown image or category.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
        categories = _by_id(content["categories"], "name", "category")
        images = _by_id(content["images"], "file_name", "image")
        pairs = [(_number(row["image_id"]), _number(row["category_id"])) for row in content["annotations"]]
        numbers = Counter(row["id"] for row in content["annotations"] if isinstance(row.get("id"), (int, str)))
        groups = {str(row.get("supercategory")) for row in content["categories"]}
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"annotation file '{path}' is not in the COCO instances format: no {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"annotation file '{path}' is not JSON: {error}") from None
    except ValueError as error:
        raise UserError(f"annotation file '{path}': {error}") from None
    twice = next((file for file, count in Counter(images.values()).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"annotation file '{path}': two images are one file, '{twice}'")
    for number, count in numbers.items():
        if count > 1:  # does no harm to a label: both are read
            left.add("annotation ids that stand for several annotations, all of which are read", str(number))
    row = {key: place for place, key in enumerate(images)}
    column = {key: place for place, key in enumerate(categories)}
    labels = np.zeros((len(row), len(column)), dtype=np.float32)
    for image, category in pairs:
        if image not in row or category not in column:
            raise UserError(f"annotation file '{path}' lacks image {image} or category {category} of an annotation")
        labels[row[image], column[category]] = 1
    unused = set(np.flatnonzero(labels.sum(axis=0) == 0).tolist())
    for label, name in enumerate(categories.values()):
        if name in groups:
            left.add("categories that are the supercategory of others, a class of their own here", name)
        elif label in unused:
            left.add("categories that no image has, a class all the same", name)
    return list(categories.values()), list(images.values()), labels


def _by_id(rows: Sequence[Mapping[str, Any]], field: str, what: str) -> dict[int, str]:
    """{id: text of a field}, by ascending id; ValueError if an id is no number, or stands for two of them."""
    found: dict[int, str] = {}
    for row in rows:
        number, text = _number(row["id"]), row[field]
        if not isinstance(text, str):
            raise ValueError(f"{what} {number} has the {field} {text!r}, not a text")
        if number in found:
            raise ValueError(f"the id {number} stands for two of them, {what} '{found[number]}' and {what} '{text}'")
        found[number] = text
    return dict(sorted(found.items()))


def _number(value: object) -> int:
    """An id: a whole number, or the text of one. ValueError for anything else; 1.5 is not rounded."""
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(value, str):
        number = whole_number(value)
    if number is None:
        raise ValueError(f"the id {value!r} is not a whole number")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError if a key comes twice, for the second would silently stand for both."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{twice}' comes twice in one object")
    return found
