"""Records of a report's cells, read once more: for layouts that need more than the numbers that every report has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..cell import Cell
from ..types import Records
from .common import Reader, common_samples
from .evaluate import Measured, Results
from .merge import AXES, Source
from .stats import Replicates


def usable(cell: Cell) -> bool:
    """Whether a cell has records of its own whose confidence means something: one label, a calibration that is valid."""
    return cell.task == "single" and not cell.accuracy_only and cell.kind != "worst"


def readers(results: Results) -> dict[str, Reader]:
    """Cell id -> what reads its records, of the samples that a report compares its data set's cells on, in one order."""
    sources = [source_of(cell) for cell in results.cells if cell.kind != "worst"]
    common = common_samples(sources, [])
    return {source.cell.id: Reader(source, common[source.names["dataset"]]) for source in sources}


def source_of(cell: Measured) -> Source:
    """Where the records of a cell are, and its names."""
    return Source(cell.run, cell.meta, {axis: getattr(cell, axis) for axis in AXES})


def with_numbers(results: Results, numbers: Mapping[str, Replicates]) -> Results:
    """The cells that have other numbers (by cell id), with these in the place of their own and their flags."""
    held = [cell for cell in results.cells if cell.id in numbers]
    cells = [replace(cell, numbers=replace(numbers[cell.id], flags=cell.numbers.flags)) for cell in held]
    return Results(cells, runs=results.runs, bins=results.bins, given=results.given)


def by_resolution(results: Results) -> Iterator[tuple[int, Results]]:
    """The cells of each resolution by themselves, under the same labels.

    A radius at 224 pixels is another threat model than at 32: what is averaged is of one resolution.
    """
    for side in sorted({cell.meta.resolution for cell in results.cells}):
        part = replace(results, cells=[cell for cell in results.cells if cell.meta.resolution == side])
        part.labels, part.tex = results.labels, results.tex
        yield side, part


def half(records: Records, second: bool) -> dict[str, np.ndarray]:
    """One of two random halves of the records, by their ids: what is fitted to the first is judged on the second.

    Not every other record: a data set's order goes through the classes in turn, so that with an even number of them every
    other record would be of every other class.
    """
    drawn = [hashlib.sha256(f"half\0{name}".encode()).digest() for name in records["id"]]
    places = sorted(sorted(range(len(drawn)), key=drawn.__getitem__)[int(second) :: 2])
    return {name: np.asarray(column)[places] for name, column in records.items()}


def members(results: Results, kinds: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(attack, radius) of all cells, clean ones first; of some kinds only, where they are named."""
    found = [(c.attack, c.eps) for c in results.cells if not kinds or c.kind in kinds]
    clean = [(c.attack, c.eps) for c in results.cells if c.kind == "clean" and (not kinds or "clean" in kinds)]
    attacks, sizes = results.values("attack"), results.values("eps")
    ordered = sorted(found, key=lambda member: (attacks.index(member[0]), sizes.index(member[1])))
    return list(dict.fromkeys([*clean, *ordered]))
