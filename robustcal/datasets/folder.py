"""Any folder of class folders: ``folder:PATH`` reads ``PATH/CLASS/*.jpg``, no code and no index file needed.

Class names are the folder names; ``classnames.txt`` (in the sorted order of the folders: by number where all are
numbers) and ``zeroshot_classification_templates.txt`` beside them overrule names and prompt. Images in sub-folders of
a class folder belong to that class. Cards of sets that come as class folders, or as one folder with a list of
annotations, use this source too.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import register
from ..types import Templates, UserError
from .card import Asked, Card, card_name, check_templates, describe, split_of, split_table
from .fetch import fetch_archive, missing
from .images import EXTENSIONS, ImageDataset
from .lines import LeftOut, read_lines, whole_number, without_empty_end
from .names import say_nothing
from .root import data_root, own_path
from .tree import Tree, entries, hidden, is_image
from .webdataset import CLASSNAMES, TEMPLATES

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test"}
NESTED = "images in sub-folders, read as the class of the folder above"


@register.dataset
def folder(
    *, variant: str | None = None, card: Card | None = None, split: str | None = None, resolution: str | None = None,
    preprocess: str | None = None, prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """Images in one folder per class, by path or by a card that says ``folder``.

    Args:
        split: sub-folder that holds the class folders; default the card's, else PATH itself.
        resolution: side in pixels, or ``native``; default the card's, else 224.
        preprocess: crop, stretch, clip or native; default the card's, else crop.
        prompts: a prompt set of the card.
        check: refuse data whose counts are not the card's.

    Raises:
        UserError: no such folder, no class folders, a class without images, or folder names that are no words.
    """
    split = split_of(card, split)
    if variant:
        base = own_path(variant)
        top = base / split if split else base
    elif card and (place := split_table(card, split).get("folder", card.get("folder"))):
        if missing(card, split):
            fetch_archive(card, split)
        base = top = data_root() / place
    else:
        raise UserError("dataset 'folder' needs a folder: folder:PATH")
    if not top.is_dir():
        raise UserError(f"folder '{top}' does not exist")
    left = LeftOut()
    annotations = top / split_table(card, split).get("annotations", "")
    if annotations.is_file():
        classes, files, labels = from_list(annotations, left)
    else:
        classes, files, labels = from_folders(top, left, card.get("class_order", "name") if card else None)
    name = card_name(card) if card else base.resolve().name
    prefix = f"{name}/{split}" if split else name
    relative = [os.path.relpath(path, top).replace(os.sep, "/") for path in files]
    keys, templates = (classes, None) if card else _texts(base, classes)
    if card and not {"classnames", "templates"} & set(card):
        check_words(classes, top)
    return describe(
        card, Asked(resolution, preprocess, prompts, check), name=name, split=split, keys=keys,
        labels=np.array(labels, dtype=np.int64), ids=[f"{prefix}/{path}" for path in relative],
        picture=lambda i: Image.open(files[i]), content=lambda i: Path(files[i]).read_bytes(),
        where=lambda i: str(files[i]), place=str(top), facts=hashlib.sha256("\n".join(relative).encode()).hexdigest(),
        templates=templates, notes=left.notes(),
    )  # fmt: skip


def from_folders(top: Path, left: LeftOut, order: str | None = None) -> tuple[list[str], list[str], list[int]]:
    """Class folders below `top`: (class keys in sorted order, image files, labels); sub-folders belong to their class.

    Args:
        left: counts what is not read.
        order: "number" sorts folders 0, 1, 2, 10 by value, "name" by name; default: by value where all are numbers.

    Raises:
        UserError: no class folders, one without images, or folders that look like splits.
    """
    tree = Tree(str(top), left)
    inside = entries(str(top))
    for entry in inside:
        if hidden(entry.name):
            tree.skip(entry)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError(f"'{entry.path}' is a link to nothing; mend it, or remove it if it is no class")
        elif not os.path.isdir(entry.path) and is_image(entry.name):
            left.add("images beside the class folders, not read", entry.name)
        elif order is None and not os.path.isdir(entry.path) and entry.name not in (CLASSNAMES, TEMPLATES):
            left.add("files beside the class folders, not read", entry.name)
    folders = [entry for entry in inside if os.path.isdir(entry.path) and not hidden(entry.name)]
    classes = [entry.name for entry in folders if not tree.leads_up(entry.path)]
    if not classes:
        raise UserError(f"folder '{top}' has no class folders; it needs one sub-folder of images per class")
    if set(map(str.lower, classes)) <= SPLIT_NAMES:
        raise UserError(f"the folders in '{top}' look like splits, not classes; choose one with split={classes[0]}")
    classes = sorted_classes(classes, order, top)
    found = {name: tree.images(str(top / name)) for name in classes}
    for name, images in found.items():
        if not images:
            there = "; ".join([", ".join(sorted(EXTENSIONS)), *left.notes()])
            raise UserError(f"class folder '{top / name}' has no images ({there})")
        nested = [path for path in images if os.path.dirname(path) != str(top / name)]
        if nested and order is None:  # a card's own sub-folders are known
            left.add(NESTED, os.path.relpath(nested[0], top), len(nested))
    files = [path for images in found.values() for path in images]
    return classes, files, [label for label, images in enumerate(found.values()) for _ in images]


def sorted_classes(classes: list[str], order: str | None, top: Path) -> list[str]:
    """Class folders by name, or by value; see `from_folders`."""
    numbers = {name: whole_number(name) for name in classes}
    if None in numbers.values():
        if order == "number":
            odd = max(name for name, number in numbers.items() if number is None)
            raise UserError(f"the class folders in '{top}' should be numbers, but there is '{odd}'")
        return sorted(classes)
    if order == "name":
        return sorted(classes)
    if len(set(numbers.values())) < len(classes):
        raise UserError(f"two class folders in '{top}' are one number; rename them: {', '.join(sorted(classes))[:80]}")
    return sorted(classes, key=lambda name: numbers[name] or 0)


def from_list(annotations: Path, left: LeftOut) -> tuple[list[str], list[str], list[int]]:
    """Tab-separated lines "file, class, ..." beside a folder ``images``: (sorted class keys, image files, labels)."""
    lines = without_empty_end(read_lines(annotations, "one line per image: file, tab, class"))
    rows = [line.split("\t") for line in lines]
    bad = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if bad is not None:
        raise UserError(f"line {bad} of '{annotations}' is not of the form: file, tab, class")
    listed = Counter(row[0] for row in rows)
    twice = next((file for file, count in listed.items() if count > 1), None)
    if twice is not None:
        raise UserError(f"'{annotations}' lists '{twice}' more than once")
    classes = sorted({row[1] for row in rows})
    number = {name: label for label, name in enumerate(classes)}
    images = annotations.parent / "images"
    for name in sorted(os.listdir(images)) if images.is_dir() else ():
        if is_image(name) and not hidden(name) and name not in listed:
            left.add(f"images that {annotations.name} does not list, not read", name)
    return classes, [str(images / row[0]) for row in rows], [number[row[1]] for row in rows]


def check_words(classes: list[str], top: Path) -> None:
    """Refuse class folders whose names are no words, where nothing else names the classes.

    Raises:
        UserError: says how to name them.
    """
    if say_nothing(classes):
        shown, how = ", ".join(classes[:3]), f"name them in '{CLASSNAMES}', one line per folder in this order"
        raise UserError(f"the class folders in '{top}' ({shown} ...) are no words for a prompt; {how}, or use a card")


def _texts(base: Path, classes: list[str]) -> tuple[list[str], Templates | None]:
    """Class names and templates from the optional text files in `base`."""
    names, templates = base / CLASSNAMES, base / TEMPLATES
    keys = read_lines(names, "one class name per line") if names.is_file() else classes
    keys = keys if len(keys) == len(classes) else without_empty_end(keys)
    if len(keys) != len(classes):
        raise UserError(f"'{names}' has {len(keys)} lines for {len(classes)} class folders")
    place = {name: label for label, name in enumerate(classes)}
    for label, key in enumerate(keys):
        if place.get(key, label) != label:
            order = f"folder {label + 1} in sorted order is '{classes[label]}'"
            raise UserError(f"line {label + 1} of '{names}' is '{key}', but {order}; put the lines in that order")
    if not names.is_file() and not templates.is_file():
        check_words(classes, base)
    if not templates.is_file():
        return keys, None
    return keys, check_templates(without_empty_end(read_lines(templates, "one prompt per line")), str(templates))
