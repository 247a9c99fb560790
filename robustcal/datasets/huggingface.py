"""Image sets from the Hugging Face hub: ``huggingface:org/name``, parquet files or a webdataset pack.

Parquet files are read in place, a row group at a time: an image column (bytes) and a label column, whose class names
the hub stores in the file's own schema. A repository with ``classnames.txt``, such as the ``clip-benchmark/wds_...``
ones, is read as a webdataset pack. A local folder of parquet files works too, with no network and no hub package.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..registry import register
from ..types import UserError
from .card import card_name, describe, split_of
from .images import ImageDataset
from .root import offline
from .webdataset import CLASSNAMES, read_pack

#: Row groups kept decoded from parquet; images in them are still compressed.
KEPT = 4


@register.dataset
def huggingface(
    *, variant: str | None = None, card: dict | None = None, split: str | None = None, image: str = "image",
    label: str = "label", revision: str | None = None, resolution: str | None = None, preprocess: str | None = None,
    prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """A hub repository, a local folder of parquet files, or a card that says ``repository``.

    Args:
        split: default the card's, else ``test``. Parquet files belong to it by name: ``test-00000-of-00002.parquet``
            anywhere in the repository, or any file in a folder ``test``.
        image: name of the image column.
        label: name of the label column: a class index, or a list of them (multi-label).
        revision: commit or tag of the repository; default the newest.
        resolution, preprocess, prompts, check: as for every source.

    Raises:
        UserError: no such repository or split, no network, or columns that hold no images or labels.
    """
    place = variant or (card or {}).get("repository")
    if not place:
        raise UserError("dataset 'huggingface' needs a repository: huggingface:org/name")
    split = split_of(card, split, "test")
    folder = Path(place).expanduser()
    folder = folder if folder.is_dir() else snapshot(place, split, revision)
    shared = {"resolution": resolution, "preprocess": preprocess, "prompts": prompts, "check": check}
    name = card_name(card) if card else place.rstrip("/").rpartition("/")[2]
    if (folder / CLASSNAMES).is_file():
        return read_pack(folder, name, split, card, **shared)
    table = Table(parquet_files(folder, split), image, label)
    ids = [f"{name}/{split}/{index:05d}" for index in range(len(table.labels))]
    return describe(
        card, name=name, split=split, keys=table.classes, labels=table.labels, ids=ids,
        picture=lambda i: Image.open(io.BytesIO(table.image(i))), content=table.image,
        where=table.where, place=str(folder), facts=table.facts, **shared,
    )  # fmt: skip


def snapshot(repository: str, split: str, revision: str | None) -> Path:
    """The local copy of a repository's files of one split, downloaded by the hub's own client into its own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError("huggingface needs the package huggingface_hub: pip install robustcal[huggingface]") from None
    patterns = ["*.txt", f"{split}/*", f"*/{split}/*", f"{split}-*.parquet", f"*/{split}-*.parquet"]
    try:
        place = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=patterns, local_files_only=offline()
        )
    except Exception as error:  # the client raises errors of several packages
        reason = " ".join(str(error).split())[:200]
        trouble = f"'{repository}' is neither a folder nor a repository that can be fetched from the hub"
        raise UserError(f"{trouble} ({reason})") from None
    return Path(place)


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split, sorted by path."""
    found = sorted(folder.rglob("*.parquet"))
    mine = [path for path in found if path.name.startswith(f"{split}-") or path.name == f"{split}.parquet"]
    mine = mine or [path for path in found if path.parent.name == split]
    if not mine:
        there = sorted({path.name.partition("-")[0].removesuffix(".parquet") for path in found})
        raise UserError(f"'{folder}' has no parquet files of split '{split}'; it has: {', '.join(there) or 'none'}")
    return mine


class Table:
    """Parquet files as one table of images and labels; labels are in memory, images are fetched by row group."""

    def __init__(self, paths: list[Path], image: str, label: str):
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException

        self.paths, self.column = paths, image
        try:
            self.files = [parquet.ParquetFile(path) for path in paths]
        except (ArrowException, OSError) as error:
            raise UserError(f"a parquet file in '{paths[0].parent}' cannot be read: {error}") from None
        for wanted in (image, label):
            names = self.files[0].schema_arrow.names
            if wanted not in names:
                raise UserError(f"'{paths[0]}' has no column '{wanted}'; it has: {', '.join(names)}")
        rows = [value for file in self.files for value in file.read([label]).column(0).to_pylist()]
        self.classes = _class_names(self.files[0].schema_arrow.metadata, label, rows, paths[0])
        self.labels = _labels(rows, len(self.classes), paths[0])
        counts = [(f, g, file.metadata.row_group(g).num_rows) for f, file in enumerate(self.files)
                  for g in range(file.num_row_groups)]  # fmt: skip
        self.groups = [(file, group) for file, group, _ in counts]
        self.starts = np.cumsum([0] + [rows for _, _, rows in counts])
        self.facts = hashlib.sha256(repr([rows for _, _, rows in counts]).encode()).hexdigest()
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, index: int) -> bytes:
        """The encoded image of a row."""
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        with self._lock:
            if group not in self._kept:
                file, number = self.groups[group]
                column = self.files[file].read_row_group(number, [self.column]).column(0)
                self._kept[group] = column.to_pylist()
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            value = self._kept[group][index - self.starts[group]]
        value = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(value, bytes):
            raise UserError(f"{self.where(index)} holds no image bytes in column '{self.column}'")
        return value

    def where(self, index: int) -> str:
        """File and row, for errors."""
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        file = self.groups[group][0]
        first = self.starts[next(g for g, (f, _) in enumerate(self.groups) if f == file)]
        return f"{self.paths[file]}, row {index - first}"


def _class_names(metadata: dict | None, column: str, rows: list, path: Path) -> list[str]:
    """The names of a ClassLabel column, or of a sequence of them, from the schema; else "0", "1", ... as needed."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        if feature.get("names"):
            return [str(name) for name in feature["names"]]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        pass
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    if not flat or not all(isinstance(value, int) for value in flat):
        raise UserError(f"column '{column}' of '{path}' holds no class indices")
    return [str(index) for index in range(max(flat) + 1)]


def _labels(rows: list, classes: int, path: Path) -> np.ndarray:
    """Indices (n,) int64, or multi-hot (n, C) float32 where a row is a list of indices."""
    multi = any(isinstance(row, list) for row in rows)
    for number, row in enumerate(rows):
        values = row if isinstance(row, list) else [row]
        if isinstance(row, list) != multi or not all(isinstance(v, int) and 0 <= v < classes for v in values):
            last = classes - 1
            raise UserError(f"row {number} of the split that begins with '{path}' has label {row}, not 0 to {last}")
    if not multi:
        return np.array(rows, dtype=np.int64)
    labels = np.zeros((len(rows), classes), dtype=np.float32)
    for number, row in enumerate(rows):
        labels[number, row] = 1
    return labels
