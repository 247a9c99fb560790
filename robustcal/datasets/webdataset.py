"""Any pack in the CLIP_benchmark webdataset layout: tar shards with class names and prompts beside them.

``webdataset:PATH`` reads ``PATH/classnames.txt`` (line number = label),
``PATH/zeroshot_classification_templates.txt``, ``PATH/SPLIT/nshards.txt`` and the shards ``PATH/SPLIT/0.tar`` (or
``0.tar.gz``) onwards. A sample is an image member and a label member of the same key, their name up to its last dot:
``.cls`` (an integer as text) or ``.npy`` (multi-hot).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import Asked, Card, card_name, check_templates, describe, split_of
from .images import EXTENSIONS, ImageDataset
from .lines import LeftOut, read_lines, whole_number, without_empty_end
from .root import data_root, own_path
from .shards import Member, Shard
from .tree import hidden

CLASSNAMES = "classnames.txt"
LABELS = ("cls", "npy", "txt")
TEMPLATES = "zeroshot_classification_templates.txt"
TARS = (".tar", ".tar.gz", ".tgz")


@register.dataset
def webdataset(
    *, variant: str | None = None, card: Card | None = None, split: str | None = None, resolution: str | None = None,
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
    if variant:
        pack = own_path(variant)
    elif card and card.get("folder"):
        pack = data_root() / card["folder"]
    else:
        raise UserError("dataset 'webdataset' needs a folder: webdataset:PATH")
    if not pack.is_dir():
        raise UserError(f"webdataset folder '{pack}' does not exist")
    name = card_name(card) if card else pack.resolve().name
    return read_pack(pack, name, split_of(card, split) or "test", card, Asked(resolution, preprocess, prompts, check))


def read_pack(pack: Path, name: str, split: str, card: Card | None, asked: Asked) -> ImageDataset:
    """The dataset of one split of a pack."""
    lines = read_lines(pack / CLASSNAMES, "one class name per line, line number = label")
    prompts = read_lines(pack / TEMPLATES, "one prompt per line, with {c} for the class name")
    left = LeftOut()
    images, labels = index(pack, split, len(without_empty_end(lines)), len(lines), left)
    used = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    classnames = lines[: max(used, len(without_empty_end(lines)))]
    if len(classnames) < len(lines):
        spare = len(lines) - len(classnames)
        left.add(f"empty lines at the end of {CLASSNAMES}, no classes", f"line {len(classnames) + 1}", spare)
    return describe(
        card, asked, name=name, split=split, keys=classnames, labels=labels, ids=_ids(f"{name}/{split}", images),
        picture=lambda i: Image.open(io.BytesIO(images[i].read())), content=lambda i: images[i].read(),
        where=lambda i: str(images[i]), place=str(pack / split),
        templates=check_templates(without_empty_end(prompts), str(pack / TEMPLATES)),
        facts=hashlib.sha256("\n".join(f"{m.name} {m.size}" for m in images).encode()).hexdigest(), notes=left.notes(),
    )  # fmt: skip


def shard_paths(pack: Path, split: str) -> list[Path]:
    """The shards of a split in order, as many as ``nshards.txt`` says; a gzipped shard may stand for a plain one.

    Raises:
        UserError: no such split, or shards that ``nshards.txt`` does not count.
    """
    folder = pack / split
    if not folder.is_dir():
        there = sorted(path.parent.name for path in pack.glob("*/nshards.txt"))
        raise UserError(f"'{pack}' has no split '{split}'; it has: {', '.join(there) or 'none'}")
    said = read_lines(folder / "nshards.txt", "the number of shards")[0].strip()
    count = whole_number(said)
    if not count:
        raise UserError(f"'{folder / 'nshards.txt'}' says '{said}'; it holds the number of shards, 1 or more")
    there = sorted(path.name for path in folder.iterdir() if path.name.endswith(TARS) and not hidden(path.name))
    paths = []
    for number in range(count):
        names = [name for name in (f"{number}{suffix}" for suffix in TARS) if name in there]
        if len(names) > 1:
            raise UserError(f"'{folder}' holds shard {number} twice: {', '.join(names)}; remove one")
        paths.append(folder / (names or [f"{number}.tar"])[0])
    more = sorted({*there} - {path.name for path in paths})
    if more:
        count_of = f"{len(there)} shards, but nshards.txt says {count}"
        raise UserError(f"'{folder}' holds {count_of}; not counted: {', '.join(more[:8])}")
    return paths


def index(pack: Path, split: str, least: int, most: int, left: LeftOut) -> tuple[list[Member], np.ndarray]:
    """Image member and label of every sample, in shard order: labels (n,) int64, or (n, C) multi-hot float32.

    Args:
        least, most: numbers of classes, without and with the empty names at the end of the list.
        left: counts what is not read.
    """
    images: list[Member] = []
    labels: list[int | np.ndarray] = []
    for path in shard_paths(pack, split):
        for key, members in _samples(Shard(path), left).items():
            place = f"sample '{key}' of shard '{path}'"
            pictures = [m for suffix, m in members.items() if "." + suffix in EXTENSIONS]
            if not pictures:
                raise UserError(f"{place} has no image, only: {', '.join(members)}")
            if len(pictures) > 1:
                left.add("further images of a sample, of which the first is read", str(pictures[1]), len(pictures) - 1)
            images.append(pictures[0])
            labels.append(_label(place, members, least, most))
    sizes = {np.size(label) if np.ndim(label) else 0 for label in labels}
    if len(sizes) > 1:
        raise UserError(f"'{pack / split}' mixes single labels (.cls) with multi-hot ones (.npy), or rows of {sizes}")
    return images, np.array(labels, dtype=np.int64 if sizes == {0} else np.float32)


def _samples(shard: Shard, left: LeftOut) -> dict[str, dict[str, Member]]:
    """{key: {suffix: member}}, in the order of first members; members of one sample may stand apart from each other.

    Raises:
        UserError: if a member is there twice, or there are no samples.
    """
    samples: dict[str, dict[str, Member]] = {}
    for member in shard.members():
        key, dot, suffix = member.name.rpartition(".")
        suffix = suffix.lower()
        known = bool(dot) and ("." + suffix in EXTENSIONS or suffix in LABELS)
        if any(hidden(part) for part in member.name.split("/")):
            if known:
                left.add("hidden members, not read", str(member))
        elif not known:
            left.add(f"members of suffix .{suffix}, not read" if dot else "members without a suffix, not read", str(member))
        elif suffix in samples.setdefault(key, {}):
            raise UserError(f"shard '{shard.path}' holds '{member.name}' twice; each sample needs a key of its own")
        else:
            samples[key][suffix] = member
    for name in shard.not_files:
        left.add("links and special files in shards, not read", f"{shard.path}:{name}")
    for key, members in list(samples.items()):
        if "txt" in members and (len(members) == 1 or {"cls", "npy"} & set(members)):
            left.add("members of suffix .txt, not read", str(members.pop("txt")))
        if not members:
            del samples[key]
    for key, members in list(samples.items()):  # "s0.mask.png" beside "s0.jpg" and "s0.cls" is a part of s0
        folder, slash, file = key.rpartition("/")
        owner = folder + slash + file.partition(".")[0]
        if owner != key and owner in samples and not {"cls", "npy"} & set(members):
            left.add("further members of a sample, not read", str(next(iter(members.values()))), len(members))
            del samples[key]
    if not samples:
        raise UserError(f"shard '{shard.path}' holds no samples{''.join(f'; {note}' for note in left.notes())}")
    return samples


def _label(place: str, members: dict[str, Member], least: int, most: int) -> int | np.ndarray:
    if "cls" in members and "npy" in members:
        raise UserError(f"{place} has two labels, .cls and .npy; remove one")
    if "cls" in members:
        text = members["cls"].read().decode("utf-8-sig", "replace").strip()
        number = whole_number(text)
        if number is None or number >= most:
            raise UserError(f"{place} has label '{text[:40]}'; labels are 0 to {most - 1}, the lines of {CLASSNAMES}")
        return number
    if "npy" in members:
        try:
            row = np.load(io.BytesIO(members["npy"].read()), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:
            raise UserError(f"{place} has an unreadable .npy label: {error}") from None
        if row.ndim != 1 or not least <= len(row) <= most or not np.isin(row, (0, 1)).all():
            raise UserError(f"{place} has a .npy label that is no multi-hot row of {least} zeros and ones")
        return np.asarray(row, dtype=np.float32)
    kind = "; a retrieval pack has captions, not classes" if "txt" in members else ""
    raise UserError(f"{place} has no label member (.cls or .npy){kind}")


def _ids(prefix: str, images: list[Member]) -> list[str]:
    """``prefix/key``; keys that restart in each shard are told apart by the shard's number."""
    keys = [member.name.rpartition(".")[0].rpartition("/")[2] for member in images]
    if len(set(keys)) < len(keys):
        keys = [f"{m.shard.path.name.partition('.')[0]}-{m.name.rpartition('.')[0]}" for m in images]
    return [f"{prefix}/{key}" for key in keys]
