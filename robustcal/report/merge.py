"""Several runs as one: the newest records of an identical cell win, and whatever disagrees is named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cell import Cell
from ..records.store import Run
from ..types import radius_text
from .labels import sentence

#: What, besides its spec, makes a model, dataset or attack what it is: (spec key, identity keys, words).
AXES = {
    "model": (("weights",), "weights"),
    "dataset": (("data", "prompts"), "data, prompts or samples"),
    "attack": (("attack_version", "attack_file", "surrogate", "precision", "seed"), "version, precision or seed"),
}


@dataclass(frozen=True)
class Source:
    """A cell and the run that holds its records. `names`: model, dataset and attack, distinct where they differ."""

    run: Run
    cell: Cell
    names: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.names["model"], self.names["dataset"], self.names["attack"], radius_text(self.cell.eps))


def merge(runs: Sequence[Run]) -> tuple[list[Source], list[str]]:
    """Cells of all runs, each once, ordered by model, dataset, attack and radius; and one line per conflict."""
    held: dict[str, list[tuple[Run, Cell]]] = defaultdict(list)
    for run in runs:
        for cell in run.cells():
            held[cell.id].append((run, cell))
    notes: list[str] = []
    chosen = [_newest(copies, notes) for copies in held.values()]
    held_now = [replace(cell, n=min(cell.n, run.held(cell))) for run, cell in chosen]
    names = {axis: _names(held_now, axis, notes) for axis in AXES}
    sources = [Source(run, cell, {axis: names[axis][cell.id] for axis in AXES}) for run, cell in chosen]
    return _ordered(sources), notes


def _newest(copies: list[tuple[Run, Cell]], notes: list[str]) -> tuple[Run, Cell]:
    if len(copies) == 1:
        return copies[0]
    held = [(sum(run.present(cell.id).values()), record_time(run, cell.id)) for run, cell in copies]
    ranked = [copies[at] for at in sorted(range(len(copies)), key=held.__getitem__)]
    (loser, cell), (winner, _) = ranked[-2], ranked[-1]
    if not _same_records(winner, loser, cell.id):
        runs = f"'{winner.path.name}' and '{loser.path.name}'"
        notes.append(f"conflict: {cell.title}: records of {runs} differ; the longer or newer are used")
    return ranked[-1]


def record_time(run: Run, cell: str) -> float:
    """When the newest shard of a cell was written; 0 if it has none."""
    return max((path.stat().st_mtime for path in (run.path / "records" / cell).glob("*.parquet")), default=0.0)


def _same_records(one: Run, other: Run, cell: str) -> bool:
    if not all(any((run.path / "records" / cell).glob("*.parquet")) for run in (one, other)):
        return True  # one of them is not computed yet: nothing to disagree about
    columns = ("id", "prediction", "confidence")
    a, b = one.read(cell, columns), other.read(cell, columns)
    n = min(len(a["id"]), len(b["id"]))  # the beginning that both have
    return all(np.array_equal(a[name][:n], b[name][:n]) for name in columns)


def _names(cells: list[Cell], axis: str, notes: list[str]) -> dict[str, str]:
    """Cell id -> name on this axis. The spec, and its identity beside it where one spec means several things."""
    keys, words = AXES[axis]
    meaning = {cell.id: tuple(str(getattr(cell.identity, key)) for key in keys) for cell in cells}
    if axis == "dataset":
        taken = _selections(cells)
        meaning = {name: (*facts, taken[name]) for name, facts in meaning.items()}
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for cell in cells:
        if meaning[cell.id] not in found[getattr(cell, axis)]:
            found[getattr(cell, axis)].append(meaning[cell.id])
    marks = {spec: _marks(meanings, keys) for spec, meanings in found.items()}
    for spec, told in marks.items():
        if len(told) > 1:
            apart = sentence(f"#{mark}" for mark in told.values())
            notes.append(f"conflict: {axis} '{spec}' appears with {len(told)} different {words}; told apart by {apart}")
    result = {}
    for cell in cells:
        told = marks[getattr(cell, axis)]
        result[cell.id] = getattr(cell, axis) + (f" #{told[meaning[cell.id]]}" if len(told) > 1 else "")
    return result


def _selections(cells: list[Cell]) -> dict[str, str]:
    """Cell id -> which samples of its data set it took, where parts were taken in several orders; else "".

    That a cell took all there are in one order or another means the same.
    """
    parts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    same = {cell.id: (cell.dataset, cell.identity.data, cell.identity.prompts) for cell in cells}
    for cell in cells:
        if cell.n < cell.dataset_size:
            parts[same[cell.id]].add(cell.identity.order)
    several = {cell.id: len(parts[same[cell.id]]) > 1 and cell.identity.order in parts[same[cell.id]] for cell in cells}
    return {cell.id: cell.identity.order if several[cell.id] else "" for cell in cells}


def _marks(meanings: list[tuple[str, ...]], keys: Sequence[str]) -> dict[tuple[str, ...], str]:
    """What tells meanings of one spec apart: the precision or the seed where that alone does, else a number."""
    for key, word in (("precision", ""), ("seed", "seed=")):
        rest = {tuple(v for k, v in zip(keys, meaning) if k != key) for meaning in meanings}
        if key in keys and len(rest) == 1:
            return {meaning: word + meaning[keys.index(key)] for meaning in meanings}
    return {meaning: str(number) for number, meaning in enumerate(meanings, 1)}


def _ordered(sources: list[Source]) -> list[Source]:
    """By first appearance of model and dataset; attacks as the runs order them, then by radius."""
    ranks: dict[str, dict[str, int]] = {axis: {} for axis in AXES}
    for axis in ("model", "dataset"):
        for source in sources:
            ranks[axis].setdefault(source.names[axis], len(ranks[axis]))
    kinds = {"clean": 0, "control": 1, "shift": 2}
    attacks = {s.names["attack"]: kinds.get(s.cell.kind, 3) for s in sources}
    ranks["attack"] = {name: i for i, name in enumerate(sorted(attacks, key=attacks.__getitem__))}
    return sorted(
        sources,
        key=lambda s: (*(ranks[axis][s.names[axis]] for axis in AXES), s.cell.threat.eps, s.cell.id),
    )
