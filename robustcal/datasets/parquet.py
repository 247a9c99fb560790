"""Parquet files as one table of images and labels; every part must be there and agree with the others."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..types import UserError
from .lines import whole_number
from .tree import hidden

#: Row groups kept decoded from parquet; images in them are still compressed.
KEPT = 4
#: ``test-00000-of-00002.parquet``: split, number and total.
PART = re.compile(r"(?P<split>.+?)-(?P<number>[0-9]{1,9})-of-(?P<total>[0-9]{1,9})")


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split, sorted by path: by name, or all in a folder of the split's name.

    Raises:
        UserError: if there are none, or some are missing, repeated or in several folders.
    """
    every = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() == ".parquet")
    found = [path for path in every if not any(hidden(part) for part in path.relative_to(folder).parts)]
    mine = [path for path in found if split_of_file(path) == split or path.parent.name == split]
    if not mine:
        there = sorted({path.parent.name if whole_number(path.stem) is not None else split_of_file(path) for path in found})
        raise UserError(f"'{folder}' has no parquet files of split '{split}'; it has: {', '.join(there) or 'none'}")
    folders = sorted({str(path.parent.relative_to(folder)) for path in mine})
    if len(folders) > 1:
        raise UserError(f"split '{split}' of '{folder}' is in several folders, {', '.join(folders)}; choose one by config=")
    check_parts(mine)
    return mine


def split_of_file(path: Path) -> str:
    """The split that a file name says: ``test`` of ``test-00000-of-00002.parquet``, ``test-0.parquet`` or ``test.parquet``."""
    part = PART.match(path.stem)
    return part["split"] if part else path.stem.partition("-")[0]


def check_parts(paths: Sequence[Path]) -> None:
    """Refuse a split with a part missing, repeated, or of another count.

    Raises:
        UserError: naming the part.
    """
    parts = [PART.match(path.stem) for path in paths]
    where = f"the parquet files in '{paths[0].parent}'"
    if any(parts):
        totals = {part["total"] if part else "" for part in parts}
        if len(totals) > 1:
            raise UserError(f"{where} are parts of different wholes: {', '.join(path.name for path in paths)[:200]}")
        numbers, total = [int(part["number"]) for part in parts if part], int(totals.pop())
    else:
        alone = [whole_number(path.stem) for path in paths]
        numbers = [number for number in alone if number is not None]
        if len(numbers) < len(alone):
            return  # named freely: nothing says how many there should be
        total = len(numbers) if 0 in numbers else max(numbers)
    first = 0 if 0 in numbers or len(numbers) < total else 1
    lacking = sorted(set(range(first, first + total)) - set(numbers))
    if lacking:
        raise UserError(f"{where} lack part {lacking[0]} of {total}; fetch it, or the whole split again")
    if len(numbers) > total:
        raise UserError(f"{where} hold a part twice: {', '.join(path.name for path in paths)[:200]}")


class Table:
    """The rows of all files in order. Labels are in memory; images are fetched by row group.

    Args:
        paths: the files.
        image, label: names of the columns.

    Raises:
        UserError: if a file is damaged, lacks a column, or names its classes otherwise than the first.
    """

    def __init__(self, paths: list[Path], image: str, label: str):
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException

        self.paths, self.column = paths, image
        self.files, rows, named = [], [], []
        for path in paths:
            try:
                file = parquet.ParquetFile(path)
                columns = file.schema_arrow.names
                for wanted in (image, label):
                    if wanted not in columns:
                        raise UserError(f"'{path}' has no column '{wanted}'; it has: {', '.join(columns)}")
                rows.append(file.read([label]).column(0).to_pylist())
            except (ArrowException, OSError) as error:
                raise UserError(f"parquet file '{path}' cannot be read: {' '.join(str(error).split())}") from None
            self.files.append(file)
            named.append(names_in(file.schema_arrow.metadata, label))
        self.names = _agreed(named, paths)
        flat = [value for part in rows for row in part for value in (row if isinstance(row, list) else [row])]
        if not all(isinstance(value, int) for value in flat):
            raise UserError(f"column '{label}' of '{paths[0]}' holds no class indices")
        self.classes = len(self.names) if self.names else max(flat, default=-1) + 1
        self.labels = _labels(rows, self.classes, paths)
        counts = [(f, g, file.metadata.row_group(g).num_rows) for f, file in enumerate(self.files)
                  for g in range(file.num_row_groups)]  # fmt: skip
        self.groups = [(file, group) for file, group, _ in counts]
        self.starts = np.cumsum([0] + [size for _, _, size in counts])
        self.facts = hashlib.sha256(repr([size for _, _, size in counts]).encode()).hexdigest()
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def widen(self, classes: int) -> None:
        """Count classes that no row has: a list of names may hold more than the labels show."""
        more = classes - self.classes
        if more > 0:
            self.classes = classes
            if self.labels.ndim == 2:
                self.labels = np.pad(self.labels, ((0, 0), (0, more)))

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


def names_in(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """The names of a ClassLabel column, or of a sequence of them, from a file's schema; None where it has none."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature.get("names")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return None
    return [str(name) for name in names] if names else None


def _agreed(named: list[list[str] | None], paths: Sequence[Path]) -> list[str] | None:
    """The class names that all files give, or None; UserError where one says otherwise."""
    for names, path in zip(named, paths, strict=True):
        if names != named[0]:
            first, other = named[0] or ["no names"], names or ["no names"]
            pairs = ((a, b) for a, b in zip(first, other, strict=False) if a != b)
            one, two = next(pairs, (f"{len(first)} classes", f"{len(other)} classes"))
            raise UserError(f"'{path}' and '{paths[0].name}' name their classes differently: '{two}' here, '{one}' there")
    return named[0]


def _labels(parts: list[list[Any]], classes: int, paths: Sequence[Path]) -> np.ndarray:
    """Indices (n,) int64, or multi-hot (n, C) float32 where a row is a list of indices."""
    rows = [row for part in parts for row in part]
    multi = any(isinstance(row, list) for row in rows)
    for path, part in zip(paths, parts, strict=True):
        for number, row in enumerate(part):
            values = row if isinstance(row, list) else [row]
            if isinstance(row, list) != multi or not all(0 <= value < classes for value in values):
                raise UserError(f"row {number} of '{path}' has label {row}, not 0 to {classes - 1}")
    if not multi:
        return np.array(rows, dtype=np.int64)
    labels = np.zeros((len(rows), classes), dtype=np.float32)
    for number, row in enumerate(rows):
        labels[number, row] = 1
    return labels
