"""Any folder of class folders: ``folder:PATH`` reads ``PATH/CLASS/*.jpg``, no code and no index file needed.

Class names are the folder names; ``classnames.txt`` (in the sorted order of the folders) and
``zeroshot_classification_templates.txt`` beside them overrule names and prompt. Cards of sets that come as class
folders, or as one folder with a list of annotations, use this source too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import card_name, describe, split_of, split_table
from .fetch import fetch_archive, missing
from .images import EXTENSIONS, ImageDataset
from .root import data_root
from .webdataset import CLASSNAMES, TEMPLATES, read_lines

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test"}


@register.dataset
def folder(
    *, variant: str | None = None, card: dict | None = None, split: str | None = None, resolution: str | None = None,
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
        UserError: no such folder, no class folders, or a class without images.
    """
    split = split_of(card, split)
    if variant:
        base = Path(variant).expanduser()
        top = base / split if split else base
    elif card and (card.get("folder") or split_table(card, split).get("folder")):
        if missing(card, split):
            fetch_archive(card, split)
        base = top = data_root() / split_table(card, split).get("folder", card.get("folder", ""))
    else:
        raise UserError("dataset 'folder' needs a folder: folder:PATH")
    if not top.is_dir():
        raise UserError(f"folder '{top}' does not exist")
    annotations = top / split_table(card, split).get("annotations", "")
    listed = annotations.is_file()
    classes, files, labels = from_list(annotations) if listed else from_folders(top, (card or {}).get("class_order"))
    name = card_name(card) if card else base.resolve().name
    prefix = f"{name}/{split}" if split else name
    relative = [os.path.relpath(path, top).replace(os.sep, "/") for path in files]
    keys, templates = (classes, None) if card else _texts(base, classes)
    return describe(
        card, name=name, split=split, keys=keys, labels=np.array(labels, dtype=np.int64),
        ids=[f"{prefix}/{path}" for path in relative], picture=lambda i: Image.open(files[i]),
        content=lambda i: Path(files[i]).read_bytes(), where=lambda i: str(files[i]), place=str(top),
        facts=hashlib.sha256("\n".join(relative).encode()).hexdigest(), templates=templates,
        resolution=resolution, preprocess=preprocess, prompts=prompts, check=check,
    )  # fmt: skip


def from_folders(top: Path, order: str | None = None) -> tuple[list[str], list[str], list[int]]:
    """Class folders below `top`: (class keys in sorted order, image files, labels); sub-folders are followed.

    Args:
        order: "number" sorts folders 0, 1, 2, 10 by value; default is by name.
    """
    entries = [entry for entry in os.scandir(top) if not entry.name.startswith(".")]
    broken = sorted(entry.path for entry in entries if entry.is_symlink() and not os.path.exists(entry.path))
    if broken:
        raise UserError(f"'{broken[0]}' is a link to nothing; mend it, or remove it if it is no class")
    classes = [entry.name for entry in entries if entry.is_dir()]
    if not classes:
        raise UserError(f"folder '{top}' has no class folders; it needs one sub-folder of images per class")
    if set(map(str.lower, classes)) <= SPLIT_NAMES:
        raise UserError(f"the folders in '{top}' look like splits, not classes; choose one with split={classes[0]}")
    if order == "number" and not all(name.isdigit() for name in classes):
        raise UserError(f"the class folders in '{top}' should be numbers, but there is '{sorted(classes)[-1]}'")
    classes.sort(key=int if order == "number" else None)
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = [
            os.path.join(path, file)
            for path, _, inside in os.walk(top / name, followlinks=True)
            for file in inside
            if os.path.splitext(file)[1].lower() in EXTENSIONS and not file.startswith(".")
        ]
        if not found:
            raise UserError(f"class folder '{top / name}' has no images ({', '.join(sorted(EXTENSIONS))})")
        files += sorted(found)
        labels += [label] * len(found)
    return classes, files, labels


def from_list(annotations: Path) -> tuple[list[str], list[str], list[int]]:
    """Tab-separated lines "file, class, ..." beside a folder ``images``: (sorted class keys, image files, labels)."""
    rows = [line.split("\t") for line in read_lines(annotations, "one line per image: file, tab, class")]
    bad = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if bad is not None:
        raise UserError(f"line {bad} of '{annotations}' is not of the form: file, tab, class")
    classes = sorted({row[1] for row in rows})
    number = {name: label for label, name in enumerate(classes)}
    images = annotations.parent / "images"
    return classes, [str(images / row[0]) for row in rows], [number[row[1]] for row in rows]


def _texts(base: Path, classes: list[str]) -> tuple[list[str], list[str] | None]:
    """Class names and templates from the optional text files in `base`."""
    names, templates = base / CLASSNAMES, base / TEMPLATES
    keys = read_lines(names, "one class name per line") if names.is_file() else classes
    if len(keys) != len(classes):
        raise UserError(f"'{names}' has {len(keys)} lines for {len(classes)} class folders")
    return keys, read_lines(templates, "one prompt per line") if templates.is_file() else None
