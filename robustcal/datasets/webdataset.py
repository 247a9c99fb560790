"""Any pack in the CLIP_benchmark webdataset layout: tar shards with class names and prompts beside them.

``webdataset:PATH`` reads ``PATH/classnames.txt`` (line number = label),
``PATH/zeroshot_classification_templates.txt``, ``PATH/SPLIT/nshards.txt`` and the shards ``PATH/SPLIT/0.tar`` (or
``0.tar.gz``) onwards. A sample is an image member and a label member of the same key: ``.cls`` (an integer as text)
or ``.npy`` (multi-hot).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import card_name, check_templates, describe, split_of
from .images import EXTENSIONS, ImageDataset
from .root import data_root
from .shards import Member, Shard

CLASSNAMES = "classnames.txt"
LABELS = ("cls", "npy", "txt")
TEMPLATES = "zeroshot_classification_templates.txt"


@register.dataset
def webdataset(
    *, variant: str | None = None, card: dict | None = None, split: str | None = None, resolution: str | None = None,
    preprocess: str | None = None, prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """A pack of tar shards, by its folder or by a card that says ``folder``.

    Args:
        split: sub-folder with the shards; default the card's, else ``test``.
        resolution: side in pixels, or ``native``; default the card's, else 224.
        preprocess: crop, stretch, clip or native; default the card's, else crop.
        prompts: a prompt set of the card.
        check: refuse data whose counts are not the card's.

    Raises:
        UserError: naming the file that is missing, damaged or contradicts the layout.
    """
    if not variant and not (card or {}).get("folder"):
        raise UserError("dataset 'webdataset' needs a folder: webdataset:PATH")
    pack = Path(variant).expanduser() if variant else data_root() / card["folder"]
    if not pack.is_dir():
        raise UserError(f"webdataset folder '{pack}' does not exist")
    name = card_name(card) if card else pack.resolve().name
    shared = {"resolution": resolution, "preprocess": preprocess, "prompts": prompts, "check": check}
    return read_pack(pack, name, split_of(card, split, "test"), card, **shared)


def read_pack(pack: Path, name: str, split: str, card: dict | None, **shared) -> ImageDataset:
    """The dataset of one split of a pack; `shared` are the spec parameters that every source takes."""
    classnames = read_lines(pack / CLASSNAMES, "one class name per line, line number = label")
    templates = check_templates(
        read_lines(pack / TEMPLATES, "one prompt per line, with {c} for the class name"), str(pack / TEMPLATES)
    )
    images, labels = index(pack, split, len(classnames))
    return describe(
        card, name=name, split=split, keys=classnames, labels=labels, ids=_ids(f"{name}/{split}", images),
        picture=lambda i: Image.open(io.BytesIO(images[i].read())), content=lambda i: images[i].read(),
        where=lambda i: str(images[i]), place=str(pack / split), templates=templates,
        facts=hashlib.sha256("\n".join(f"{m.name} {m.size}" for m in images).encode()).hexdigest(), **shared,
    )  # fmt: skip


def read_lines(path: Path, meaning: str) -> list[str]:
    """The lines of a small text file, without the empty ones at its end.

    Raises:
        UserError: if it is missing, empty, or has an empty line in between.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing; it holds {meaning}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as UTF-8 text: {error}") from None
    if not lines:
        raise UserError(f"'{path}' is empty; it holds {meaning}")
    if not all(line.strip() for line in lines):
        raise UserError(f"'{path}' has an empty line {[bool(x.strip()) for x in lines].index(False) + 1}")
    return [line.strip() for line in lines]


def shard_paths(pack: Path, split: str) -> list[Path]:
    """The shards of a split in order, as many as ``nshards.txt`` says; a gzipped shard may stand for a plain one."""
    folder = pack / split
    if not folder.is_dir():
        there = sorted(path.parent.name for path in pack.glob("*/nshards.txt"))
        raise UserError(f"'{pack}' has no split '{split}'; it has: {', '.join(there) or 'none'}")
    count = read_lines(folder / "nshards.txt", "the number of shards")[0]
    if not count.isdigit() or int(count) == 0:
        raise UserError(f"'{folder / 'nshards.txt'}' says '{count}'; it holds the number of shards, 1 or more")
    paths = []
    for number in range(int(count)):
        names = [folder / f"{number}{suffix}" for suffix in (".tar", ".tar.gz", ".tgz")]
        paths.append(next((path for path in names if path.is_file()), names[0]))
    return paths


def index(pack: Path, split: str, classes: int) -> tuple[list[Member], np.ndarray]:
    """Image member and label of every sample, in shard order: labels (n,) int64, or (n, C) multi-hot float32."""
    images: list[Member] = []
    labels: list = []
    for path in shard_paths(pack, split):
        for key, members in _samples(Shard(path)):
            pictures = [m for suffix, m in members.items() if "." + suffix in EXTENSIONS]
            if not pictures:
                raise UserError(f"sample '{key}' of shard '{path}' has no image, only: {', '.join(members)}")
            images.append(pictures[0])  # of several, the first
            labels.append(_label(path, key, members, classes))
    kinds = {np.ndim(label) for label in labels}
    if len(kinds) > 1:
        raise UserError(f"'{pack / split}' mixes single labels (.cls) with multi-hot ones (.npy)")
    return images, np.array(labels, dtype=np.float32 if kinds == {1} else np.int64)


def _samples(shard: Shard):
    """(key, {suffix: member}) of each sample; members of one sample may stand apart from each other."""
    samples: dict[str, dict[str, Member]] = {}
    for member in shard.members():
        folder, _, file = member.name.rpartition("/")
        stem, dot, suffix = file.partition(".")
        suffix = suffix.lower()
        if stem and dot and ("." + suffix in EXTENSIONS or suffix in LABELS):  # hidden files have no stem
            samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[suffix] = member
    if not samples:
        raise UserError(f"shard '{shard.path}' holds no samples")
    return samples.items()


def _label(path: Path, key: str, members: dict[str, Member], classes: int) -> int | np.ndarray:
    place = f"sample '{key}' of shard '{path}'"
    if "cls" in members:
        text = members["cls"].read().decode("utf-8", "replace").strip()
        if not text.isdigit() or int(text) >= classes:
            last = classes - 1
            raise UserError(f"{place} has label '{text[:40]}'; labels are 0 to {last}, the lines of {CLASSNAMES}")
        return int(text)
    if "npy" in members:
        try:
            row = np.load(io.BytesIO(members["npy"].read()), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:
            raise UserError(f"{place} has an unreadable .npy label: {error}") from None
        if row.shape != (classes,) or not np.isin(row, (0, 1)).all():
            raise UserError(f"{place} has a .npy label that is no multi-hot row of {classes} zeros and ones")
        return row.astype(np.float32)
    kind = "; a retrieval pack has captions, not classes" if "txt" in members else ""
    raise UserError(f"{place} has no label member (.cls or .npy){kind}")


def _ids(prefix: str, images: list[Member]) -> list[str]:
    """``prefix/key``; keys that restart in each shard are told apart by the shard's number."""
    keys = [member.name.rsplit("/", 1)[-1].partition(".")[0] for member in images]
    if len(set(keys)) < len(keys):
        keys = [f"{m.shard.path.name.partition('.')[0]}-{m.name.rpartition('.')[0]}" for m in images]
    return [f"{prefix}/{key}" for key in keys]
