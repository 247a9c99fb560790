"""From stored records to numbers with intervals: every cell read once, its worst cases and flags added."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..cell import Cell
from ..metrics import validity
from ..metrics.defences import NOT_ADAPTIVE, defence_flags
from ..metrics.scores import with_loss
from ..records.store import Run
from ..types import Records, UserError, radius_text
from .catalogue import BINS, Metric, columns_of, with_bins
from .common import Reader, common_samples
from .labels import short_labels
from .merge import AXES, Source, merge
from .naming import kept_labels, labelled, renamed
from .noted import condensed, fitted_where_measured, other_labels, out_of_their_world, remarks_of, without_failed
from .resample import Resamples
from .stats import CELL_METRICS, Interval, Replicates, replicates
from .worst_rows import is_of_calibration, mean_gap, of_calibration, worst_rows

#: Besides, in reports: how everything moves from clean to attacked.
REPORT_METRICS = (*CELL_METRICS, "shift")
#: Multi-label cells have these numbers too.
MULTI_METRICS = ("multilabel", "top-labels", "label-calibration")
#: Columns a report reads besides those its metrics name. The logits, most of a record's bytes, stay on the disk.
SCALAR_COLUMNS = (
    "id", "label", "labels", "prediction", "correct", "confidence", "label_probability", "entropy", "brier",
    "dirichlet_confidence", "log_alpha0", "au", "log_eu", "linf", "l2", "forwards", "backwards", "flags",
)  # fmt: skip
#: Columns of a record that say what the sample cost.
PASSES = ("forwards", "backwards")


@dataclass
class Measured:
    """One row of cells.csv: what defines it, its numbers with their bootstrap draws, and its flags."""

    meta: Cell
    model: str
    dataset: str
    attack: str
    eps: str  # over 255, see `radius_text`
    n: int
    numbers: Replicates
    flags: dict[str, int | None]  # flag -> samples that carry it; None for a flag of the whole cell
    run: Run
    details: Any = None  # whatever `evaluate(details=...)` made of the records
    asked: Mapping[str, Replicates] = field(default_factory=dict)  # metric spec -> the numbers it returned
    passes: Mapping[str, int] = field(default_factory=dict)  # forwards and backwards spent on all its samples

    @property
    def id(self) -> str:
        return self.meta.id

    def interval(self, name: str) -> Interval:
        """A number with its 95 % limits; nan where the cell has no such number."""
        return self.numbers.interval(name) if name in self.numbers.values else Interval(*[float("nan")] * 3)

    @property
    def kind(self) -> str:
        return self.meta.kind


@dataclass
class Results:
    """All cells of one or several runs, in the order of tables."""

    cells: list[Measured]
    notes: list[str] = field(default_factory=list)  # conflicts, skipped images, unfinished cells, one line each
    runs: Sequence[Run] = ()
    bins: int = BINS  # of every calibration number that does not say otherwise
    versus: str | None = None  # the model, by its whole name, that the layout `versus` compares all others with
    title: str = ""  # of the page
    given: Mapping[str, Mapping[str, str]] | None = None  # axis -> whole spec -> label; None: those that the runs keep

    def __post_init__(self) -> None:
        self.call(kept_labels(self.runs) if self.given is None else self.given)

    def call(self, given: Mapping[str, Mapping[str, str]]) -> None:
        """Name models, datasets and attacks: axis -> whole spec -> label; those without one get the shortest that is distinct.

        `labels` are texts; `tex` says what people wrote for one of them.
        """
        self.labels: dict[str, dict[str, str]] = {}
        self.tex: dict[str, str] = {}
        self.given = given
        self._short = {axis: short_labels(getattr(cell, axis) for cell in self.cells) for axis in AXES}
        for axis in AXES:
            self.labels[axis], tex = labelled(self._short[axis], given.get(axis, {}))
            self.tex |= tex
        short = {(*(self._short[axis][getattr(c, axis)] for axis in AXES), c.eps): c for c in self.cells}
        whole = {(c.model, c.dataset, c.attack, c.eps): c for c in self.cells}
        self._index = short | {(*self.labelled(cell), cell.eps): cell for cell in self.cells} | whole

    def rename(self, orders: Sequence[str]) -> None:
        """Do what ``OLD=NEW`` says, of labels or whole names.

        Raises:
            UserError: nothing is called OLD, or two things would be called NEW.
        """
        given = {axis: dict(names) for axis, names in (self.given or {}).items()}
        for axis, names in renamed(self.labels, orders).items():
            given.setdefault(axis, {}).update(names)
        self.call(given)

    def model(self, name: str) -> str:
        """The whole name of the model that is called so.

        Raises:
            UserError: there is none.
        """
        labels, short = self.labels["model"], self._short["model"]
        for whole, label in labels.items():
            if name in (whole, label, short[whole], self.tex.get(label)):
                return whole
        there_are = ", ".join(f"'{label}'" for label in labels.values())
        raise UserError(f"no model of the run is called '{name}'; there are: {there_are}")

    def labelled(self, cell: Measured) -> tuple[str, str, str]:
        """Model, dataset and attack of a cell by their short labels."""
        model, dataset, attack = (self.labels[axis][getattr(cell, axis)] for axis in AXES)
        return model, dataset, attack

    def get(self, model: str, dataset: str, attack: str, eps: str) -> Measured | None:
        """The cell of these names, each a label or a whole spec; None if there is none."""
        return self._index.get((model, dataset, attack, radius_text(eps)))

    def values(self, axis: str) -> list[str]:
        """The distinct models, datasets, attacks or radii ("eps"), in order; radii ascending."""
        found: list[str] = list(dict.fromkeys(getattr(cell, axis) for cell in self.cells))
        if axis == "eps":
            size = {cell.eps: cell.meta.threat.eps for cell in self.cells}
            return sorted(found, key=size.__getitem__)
        return found if axis != "attack" else sorted(found, key=lambda name: name.split(" ")[0] == "worst")

    def clean_of(self, cell: Measured) -> Measured | None:
        """The clean cell of the same model and dataset."""
        same = (c for c in self.cells if c.kind == "clean" and (c.model, c.dataset) == (cell.model, cell.dataset))
        return next(same, None)

    def find(self, name: str) -> Measured:
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


Details = Callable[[Cell, Records, "Records | None"], Any]


def evaluate(
    runs: Iterable[Run], metrics: Sequence[Metric] = CELL_METRICS, *, resamples: int = 1000,
    details: Details | None = None, only: Callable[[Source], bool] | None = None, wanted: Sequence[str] = (),
    bins: int | None = None, alone: bool = False,
) -> Results:  # fmt: skip
    """Read every cell of the runs once and compute its numbers; `worst` cells are added where attacks allow.

    Args:
        metrics: specs or functions; multi-label cells get `MULTI_METRICS` too.
        only: which cells to look at; all by default.
        alone: compare those cells on what they have in common themselves, whatever other cells hold.
        details: called with (cell, records, clean records or None); its result is kept as `Measured.details`.
        wanted: specs of further metrics, kept apart in `Measured.asked`: their names may be those of others.
        bins: of every metric that has bins and does not say how many; None leaves it to the metrics.
    """
    runs = list(runs)
    sources, notes = merge(runs)
    sources = without_failed(sources, notes)
    common = common_samples([source for source in sources if not alone or only is None or only(source)], notes)
    shared: dict[str, Resamples] = {}
    labels: dict[str, tuple[str, Mapping[str, Any]]] = {}
    groups: dict[tuple[str, str], list[Source]] = {}
    for source in filter(only, sources):
        groups.setdefault((source.names["model"], source.names["dataset"]), []).append(source)
    cells: list[Measured] = []
    notes += [*remarks_of(sources), *out_of_their_world(sources), *fitted_where_measured(sources)]
    for (_, dataset), group in groups.items():
        readers = [Reader(source, common[dataset]) for source in group if dataset in common]
        cells += _group(readers, metrics, resamples, details, shared, labels, notes, wanted, bins)
    return Results(cells, condensed(notes), runs, bins or BINS)


def _group(
    readers: Sequence[Reader], metrics: Sequence[Metric], resamples: int, details: Details | None, shared: dict[str, Resamples],
    labels: dict[str, tuple[str, Mapping[str, Any]]], notes: list[str], wanted: Sequence[str], bins: int | None,
) -> list[Measured]:  # fmt: skip
    """The cells of one model on one dataset, their worst cases, and the flags that follow from them together."""

    def measure(meta: Cell, names: Mapping[str, str], records: Records, run: Run) -> Measured:
        key = _samples_key(records)
        if key not in shared:
            shared[key] = Resamples.of(records["id"], resamples)
        paired = clean if clean is not None and np.array_equal(clean["id"], records["id"]) else None
        usual = [with_bins(metric, bins) for metric in _metrics_for(meta, metrics)]
        of_gaps = is_of_calibration(meta)
        numbers = _small(replicates(records, [*usual, mean_gap] if of_gaps else usual, shared[key], clean=paired))
        numbers = of_calibration(numbers) if of_gaps else numbers
        asked = {spec: _small(replicates(records, [with_bins(spec, bins)], shared[key], clean=paired)) for spec in wanted}
        extra = details(meta, records, paired) if details else None
        axes = (names["model"], names["dataset"], names["attack"], radius_text(meta.eps))
        passes = {name: int(records[name].sum()) for name in PASSES if name in records}
        flags: dict[str, int | None] = {**validity.count_flags(records)}
        return Measured(meta, *axes, len(records["id"]), numbers, flags, run, extra, asked, passes)

    clean: Records | None = None
    cells: list[Measured] = []
    kept: dict[tuple[str, str], list[tuple[Source, Cell, Records]]] = {}
    for read in sorted(readers, key=lambda reader: reader.source.cell.kind != "clean"):  # stable: clean ones first
        source = read.source
        records = read(_columns_for(source.cell, (*metrics, *wanted)))
        if not len(records["id"]):
            continue
        meta = read.cell(len(records["id"]))
        if meta.skipped:
            notes.append(f"skipped: {meta.title}: {meta.skipped} of {meta.n} images could not be read")
        notes += other_labels(labels, source.names["dataset"], meta.title, records)
        records = with_loss(records, read)
        if clean is None and meta.kind == "clean":
            clean = records
        cells.append(measure(meta, source.names, records, source.run))
        if meta.kind != "clean":
            kept.setdefault((meta.eps, meta.threat.norm), []).append((source, meta, records))
    for (_, norm), members in kept.items():
        for meta, names, combined, source in worst_rows(members, norm):
            cells.append(measure(meta, names, combined, source.run))
    outcomes = {meta.id: records for members in kept.values() for _, meta, records in members}
    single = [cell.meta for cell in cells if cell.kind != "worst"]
    found = validity.cross_flags(single, outcomes.__getitem__)
    if clean is not None:
        outcomes |= {meta.id: clean for meta in single if meta.kind == "clean"}
    defences = {cell.id: cell.run.remarks(cell.id).get("defence", ()) for cell in cells if cell.kind != "worst"}
    defended = defence_flags(single, defences, outcomes.__getitem__)
    for cell in cells:
        flags = [*(found[cell.id] if cell.id in found else validity.own_flags(cell.meta)), *defended.get(cell.id, ())]
        if cell.meta.members and all(NOT_ADAPTIVE in defended.get(member, ()) for member in cell.meta.members):
            flags = [*flags, NOT_ADAPTIVE]
        if any(cell.run.remarks(member).get("classes") for member in cell.meta.members or (cell.id,)):
            flags = [*flags, "classes-alike"]
        cell.flags.update({flag: None for flag in flags if flag not in cell.flags})
        cell.numbers = replace(cell.numbers, flags=tuple(cell.flags))
        cell.asked = {spec: replace(numbers, flags=tuple(cell.flags)) for spec, numbers in cell.asked.items()}
    return cells


def _small(numbers: Replicates) -> Replicates:
    """The same with draws of half the size."""
    draws, plain = ({k: v.astype(np.float32) for k, v in x.items()} for x in (numbers.draws, numbers.plain))
    return replace(numbers, draws=draws, plain=plain)


def _metrics_for(cell: Cell, metrics: Sequence[Metric]) -> Sequence[Metric]:
    return (*metrics, *MULTI_METRICS) if cell.task == "multi" else metrics


def _columns_for(cell: Cell, metrics: Sequence[Metric]) -> list[str] | None:
    """Columns to read; None, all, where a metric does not say what it needs."""
    named = columns_of(_metrics_for(cell, metrics))
    return None if named is None else [*SCALAR_COLUMNS, *sorted(set(named) - set(SCALAR_COLUMNS))]


def _samples_key(records: Records) -> str:
    return hashlib.sha256("\0".join(map(str, records["id"])).encode()).hexdigest()

