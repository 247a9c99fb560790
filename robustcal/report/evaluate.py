"""From stored records to numbers with intervals: every cell read once, its worst cases and flags added."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..metrics import validity, worst
from ..metrics.scores import with_loss
from ..records.store import Run
from ..types import Records, UserError
from .labels import short_labels
from .merge import AXES, Source, merge
from .resample import Resamples
from .catalogue import columns_of
from .stats import CELL_METRICS, Interval, Replicates, replicates

#: Besides, in reports: how everything moves from clean to attacked.
REPORT_METRICS = (*CELL_METRICS, "shift")
#: Multi-label cells have these numbers too.
MULTI_METRICS = ("multilabel", "top-labels", "label-calibration")
#: Columns a report reads besides those its metrics name. The logits, most of a record's bytes, stay on the disk.
SCALAR_COLUMNS = (
    "id", "label", "labels", "prediction", "correct", "confidence", "label_probability", "entropy", "brier",
    "dirichlet_confidence", "log_alpha0", "au", "log_eu", "linf", "l2", "forwards", "backwards", "flags",
)  # fmt: skip
#: Kinds and goals of attack whose per-sample worst case is a lower bound of accuracy.
HARMFUL_KINDS, HARMFUL_GOALS = ("white-box", "black-box", "transfer"), ("untargeted", "targeted")


@dataclass
class Cell:
    """One row of cells.csv: what defines it, its numbers with their bootstrap draws, and its flags."""

    meta: Mapping[str, Any]
    model: str
    dataset: str
    attack: str
    eps: str
    n: int
    numbers: Replicates
    flags: dict[str, int | None]  # flag -> samples that carry it; None for a flag of the whole cell
    run: Run
    details: Any = None  # whatever `evaluate(details=...)` made of the records
    asked: Mapping[str, Replicates] = field(default_factory=dict)  # metric spec -> the numbers it returned

    @property
    def id(self) -> str:
        return self.meta["id"]

    def interval(self, name: str) -> Interval:
        """A number with its 95 % limits; nan where the cell has no such number."""
        return self.numbers.interval(name) if name in self.numbers.values else Interval(*[float("nan")] * 3)

    @property
    def kind(self) -> str:
        return self.meta["attack_meta"]["kind"]


@dataclass
class Results:
    """All cells of one or several runs, in the order of tables."""

    cells: list[Cell]
    notes: list[str] = field(default_factory=list)  # conflicts, skipped images, unfinished cells, one line each
    runs: Sequence[Run] = ()

    def __post_init__(self) -> None:
        self.labels = {axis: short_labels(getattr(cell, axis) for cell in self.cells) for axis in AXES}
        self._index = {(*self.labelled(cell), cell.eps): cell for cell in self.cells}
        self._index |= {(c.model, c.dataset, c.attack, c.eps): c for c in self.cells}

    def labelled(self, cell: Cell) -> tuple[str, str, str]:
        """Model, dataset and attack of a cell by their short labels."""
        return tuple(self.labels[axis][getattr(cell, axis)] for axis in AXES)

    def get(self, model: str, dataset: str, attack: str, eps: str) -> Cell | None:
        """The cell of these names, each a label or a whole spec; None if there is none."""
        return self._index.get((model, dataset, attack, eps))

    def values(self, axis: str) -> list[str]:
        """The distinct models, datasets, attacks or radii ("eps"), in order; radii ascending."""
        found = list(dict.fromkeys(getattr(cell, axis) for cell in self.cells))
        if axis == "eps":
            size = {cell.eps: cell.meta["threat"]["eps"] for cell in self.cells}
            return sorted(found, key=size.get)
        return found if axis != "attack" else sorted(found, key=lambda name: name.split(" ")[0] == "worst")

    def clean_of(self, cell: Cell) -> Cell | None:
        """The clean cell of the same model and dataset."""
        same = (c for c in self.cells if c.kind == "clean" and (c.model, c.dataset) == (cell.model, cell.dataset))
        return next(same, None)

    def find(self, name: str) -> Cell:
        """The cell whose id starts with `name`.

        Raises:
            UserError: none, or several.
        """
        found = [cell for cell in self.cells if cell.id.startswith(name)] if name else []
        if len(found) == 1:
            return found[0]
        near = found or [cell for cell in self.cells if name in f"{cell.model} {cell.dataset} {cell.attack}"]
        raise not_one(name, [cell.id for cell in found], [cell.id for cell in near])


def not_one(name: str, found: Sequence[str], near: Sequence[str]) -> UserError:
    """The one-line error of an id that names no cell or several."""
    hint = f"did you mean {', '.join(near[:3])}?" if near else "ids stand in cells.csv"
    return UserError(f"{'several cells' if found else 'no cell'} of the run start{'' if found else 's'} with '{name}'; {hint}")


def worst_ids(sources: Iterable[Source]) -> dict[str, Source]:
    """The ids that worst cases will have, each with one of its members; from what defines cells, nothing is read."""
    groups: dict[tuple, list[Source]] = {}
    for source in sources:
        cell = source.cell
        if _counts_for_worst(cell):
            key = (source.names["model"], source.names["dataset"], str(cell["eps"]), cell["threat"]["norm"])
            groups.setdefault(key, []).append(source)
    several = [group for group in groups.values() if len({source.cell["attack"] for source in group}) > 1]
    return {_worst_meta([source.cell for source in group])["id"]: group[0] for group in several}


Details = Callable[[Mapping[str, Any], Records, "Records | None"], Any]


def evaluate(
    runs: Iterable[Run], metrics: Sequence[Any] = CELL_METRICS, *, resamples: int = 1000,
    details: Details | None = None, only: Callable[[Source], bool] | None = None, wanted: Sequence[str] = (),
) -> Results:  # fmt: skip
    """Read every cell of the runs once and compute its numbers; `worst` cells are added where attacks allow.

    Args:
        metrics: specs or functions; multi-label cells get `MULTI_METRICS` too.
        only: which cells to look at; all by default.
        details: called with (cell, records, clean records or None); its result is kept as `Cell.details`.
        wanted: specs of further metrics, kept apart in `Cell.asked`: their names may be those of others.
    """
    runs = list(runs)
    sources, notes = merge(runs)
    shared: dict[str, Resamples] = {}
    groups: dict[tuple[str, str], list[Source]] = {}
    for source in filter(only, sources):
        groups.setdefault((source.names["model"], source.names["dataset"]), []).append(source)
    cells: list[Cell] = []
    for group in groups.values():
        cells += _group(group, metrics, resamples, details, shared, notes, wanted)
    return Results(cells, _condensed(notes), runs)


def _group(group, metrics, resamples, details, shared, notes, wanted) -> list[Cell]:
    """The cells of one model on one dataset, their worst cases, and the flags that follow from them together."""

    def measure(meta: Mapping[str, Any], names: Mapping[str, str], records: Records, run: Run) -> Cell:
        key = _samples_key(records)
        if key not in shared:
            shared[key] = Resamples.of(records["id"], resamples)
        paired = clean if clean is not None and np.array_equal(clean["id"], records["id"]) else None
        numbers = _small(replicates(records, _metrics_for(meta, metrics), shared[key], clean=paired))
        asked = {spec: _small(replicates(records, [spec], shared[key], clean=paired)) for spec in wanted}
        extra = details(meta, records, paired) if details else None
        axes = (names["model"], names["dataset"], names["attack"], str(meta["eps"]))
        return Cell(meta, *axes, len(records["id"]), numbers, dict(validity.count_flags(records)), run, extra, asked)

    clean: Records | None = None
    cells: list[Cell] = []
    kept: dict[tuple, list[tuple[Source, Records]]] = {}
    for source in sorted(group, key=lambda s: s.cell["attack_meta"]["kind"] != "clean"):  # stable: clean ones first
        records = source.run.read(source.cell["id"], _columns_for(source.cell, (*metrics, *wanted)))
        if not _complete(source, records, notes):
            continue
        records = with_loss(records, partial(source.run.read, source.cell["id"]))
        if clean is None and source.cell["attack_meta"]["kind"] == "clean":
            clean = records
        cells.append(measure(source.cell, source.names, records, source.run))
        if source.cell["attack_meta"]["kind"] != "clean":
            kept.setdefault((str(source.cell["eps"]), source.cell["threat"]["norm"]), []).append((source, records))
    for (eps, norm), members in kept.items():
        members = [m for m in members if _counts_for_worst(m[0].cell)]
        same = [m for m in members if np.array_equal(m[1]["id"], members[0][1]["id"])]
        if len({source.cell["attack"] for source, _ in same}) > 1:
            meta = _worst_meta([source.cell for source, _ in same])
            names = {**same[0][0].names, "attack": "worst" if norm == "linf" else f"worst {norm}"}
            labels = [source.names["attack"] for source, _ in same]
            cells.append(
                measure(meta, names, worst.worst_case([records for _, records in same], labels), same[0][0].run)
            )
    outcomes = {source.cell["id"]: records for members in kept.values() for source, records in members}
    found = validity.cross_flags([cell.meta for cell in cells if cell.kind != "worst"], outcomes.__getitem__)
    for cell in cells:
        flags = found[cell.id] if cell.id in found else validity.own_flags(cell.meta)
        cell.flags.update({flag: None for flag in flags if flag not in cell.flags})
    return cells


def _small(numbers: Replicates) -> Replicates:
    """The same with draws of half the size."""
    draws, plain = ({k: v.astype(np.float32) for k, v in x.items()} for x in (numbers.draws, numbers.plain))
    return replace(numbers, draws=draws, plain=plain)


def _complete(source: Source, records: Records, notes: list[str]) -> bool:
    """Whether a cell has all its rows; if not, or if images could not be read, a note says so."""
    cell, rows = source.cell, len(records["id"])
    what = f"{cell['model']} x {cell['dataset']} x {cell['attack']} {cell['eps']}"
    skipped = len(source.run.skipped(cell["id"])) if rows < cell["n"] else 0
    if rows + skipped != cell["n"] or rows == 0:
        notes.append(f"unfinished: {what}: {rows} of {cell['n']} samples; left out")
        return False
    if skipped:
        notes.append(f"skipped: {what}: {skipped} of {cell['n']} images could not be read")
    return True


def _condensed(notes: list[str], most: int = 3) -> list[str]:
    """The notes, with no more than `most` of one kind spelled out."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(note.split(":")[0], []).append(note)
    short = []
    for kind, lines in kinds.items():
        short += lines[:most] + ([f"{kind}: and {len(lines) - most} more"] if len(lines) > most else [])
    return short


def _metrics_for(cell: Mapping[str, Any], metrics: Sequence[Any]) -> Sequence[Any]:
    return (*metrics, *MULTI_METRICS) if cell["task"] == "multi" else metrics


def _columns_for(cell: Mapping[str, Any], metrics: Sequence[Any]) -> list[str] | None:
    """Columns to read; None, all, where a metric does not say what it needs."""
    named = columns_of(_metrics_for(cell, metrics))
    return None if named is None else [*SCALAR_COLUMNS, *sorted(set(named) - set(SCALAR_COLUMNS))]


def _samples_key(records: Records) -> str:
    return hashlib.sha256("\0".join(map(str, records["id"])).encode()).hexdigest()


def _counts_for_worst(cell: Mapping[str, Any]) -> bool:
    return cell["attack_meta"]["kind"] in HARMFUL_KINDS and cell["threat"]["goal"] in HARMFUL_GOALS


def _worst_meta(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What defines a worst-case row: the cells it was taken over."""
    cells = sorted(cells, key=lambda cell: cell["id"])
    members = [cell["id"] for cell in cells]
    digest = hashlib.sha256(b"worst\n" + "\n".join(members).encode()).hexdigest()[:16]
    returns = sorted({cell["attack_meta"]["returns"] for cell in cells})
    meta = {
        "kind": "worst", "accuracy_only": any(cell["attack_meta"]["accuracy_only"] for cell in cells),
        "returns": " or ".join(returns), "goal": cells[0]["attack_meta"]["goal"],
    }  # fmt: skip
    return {
        **cells[0], "id": digest, "attack": "worst", "attack_meta": meta, "members": members,
        "over": [cell["attack"] for cell in cells], "identity": {**cells[0]["identity"], "attack": "worst"},
    }  # fmt: skip
