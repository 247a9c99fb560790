"""The layout `conformal`: what sets of classes cover, calibrated on clean records, when an attack comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.conformal import (
    FREE,
    METHODS,
    PENALTY,
    Scored,
    coverage_limits,
    lowest_class_coverage,
    nonconformity,
    outcomes,
    threshold,
)  # fmt: skip
from ..metrics.weighted import Means
from ..types import Records, UserError
from .again import half, members, readers, usable, with_numbers
from .averages import SINGLE, Averages, entry_of
from .captions import protocol
from .evaluate import Measured, Results
from .labels import sentence
from .ragged import missing, over
from .resample import Resamples
from .stats import Replicates, replicates
from .tables import Column, Entry, Row, Table

#: Coverage that the sets are calibrated to.
LEVEL = 0.9
COLUMNS = ("id", "label", "correct", "top_logits", "top_classes", "rest_logit", "log_eu", "log_alpha0")
TITLES = {"threshold": "threshold", "aps": "APS", "raps": "RAPS"}
#: The control: threshold sets calibrated on records of the same attack.
CONTROL = "control"


@dataclass(frozen=True)
class Sets:
    """Sets of one cell's evaluation samples: numbers by method, and coverage of the least covered class."""

    numbers: Replicates
    lowest: tuple[float, float, float]


def conformal_numbers(results: Results, resamples: int = 1000) -> tuple[dict[str, Sets], dict[str, str], list[int]]:
    """Cell id -> its sets; data set -> why it has none; and on how many samples thresholds were calibrated.

    Calibrated on a random half of the clean samples of the cell's own model and data set (or, as a control, of its own
    attack) and evaluated on the other half. Names of the numbers: ``coverage_M`` and ``size_M``, M of `METHODS` or `CONTROL`.
    """
    read, shared = readers(results), dict[str, Resamples]()
    found, lacking, sizes = dict[str, Sets](), dict[str, str](), list[int]()
    for model, dataset in dict.fromkeys((c.model, c.dataset) for c in results.cells if usable(c.meta)):
        cells = [c for c in results.cells if (c.model, c.dataset) == (model, dataset) and usable(c.meta)]
        clean = next((c for c in cells if c.kind == "clean"), None)
        if clean is None:
            lacking[dataset] = "no clean records"
            continue
        try:
            limits = _limits(half(read[clean.id](COLUMNS), False))
            for cell in cells:
                records = read[cell.id](COLUMNS)
                resampling = shared.setdefault(dataset, Resamples.of(half(records, True)["id"], resamples))
                if resampling.n:
                    found[cell.id] = _judge(records, limits, resampling, cell.kind != "clean")
            sizes.append(-(-clean.n // 2))
        except UserError as error:
            lacking[dataset] = str(error)
    return found, lacking, sizes


def _limits(records: Records) -> dict[str, float]:
    return {method: threshold(nonconformity(records, method).of_label, LEVEL) for method in METHODS}


def _judge(records: Records, limits: Mapping[str, float], resamples: Resamples, control: bool) -> Sets:
    target = half(records, True)
    scored: dict[str, Scored] = {method: nonconformity(target, method) for method in METHODS}
    made = {method: outcomes(scored[method], limits[method]) for method in METHODS}
    lowest = lowest_class_coverage(made["threshold"][:, 0], np.asarray(target["label"]))
    if control:
        own = threshold(nonconformity(half(records, False)).of_label, LEVEL)
        made[CONTROL] = outcomes(scored["threshold"], own)
    columns = np.concatenate(list(made.values()), axis=1)
    names = [f"{what}_{method}" for method in made for what in ("coverage", "size")]

    def sets(rows: Records) -> Means:
        return Means(np.asarray(rows["sets"]), lambda means: dict(zip(names, np.moveaxis(means, -1, 0), strict=True)))

    return Sets(replicates({"id": target["id"], "correct": target["correct"], "sets": columns}, [sets], resamples), lowest)


# -- the layout --------------------------------------------------------------------------------------------------------
def conformal_tables(results: Results) -> list[Table]:
    """Averages over data sets, and every data set by itself."""
    found, lacking, sizes = conformal_numbers(results)
    part = with_numbers(results, {name: sets.numbers for name, sets in found.items()})
    return [_averages(results, part, sizes), _every_set(results, found, lacking)] if found else []


def _pair(title: str) -> list[Column]:
    return [Column("coverage", title, True, "", True), Column("size", title, False, "", True, 2)]


def _entries(numbers: Replicates | None, methods: Sequence[str]) -> Iterator[Entry]:
    for method in methods:
        for name in (f"coverage_{method}", f"size_{method}"):
            yield entry_of(numbers, name)


def _averages(results: Results, part: Results, sizes: Sequence[int]) -> Table:
    averages, labels, rows = Averages(part, SINGLE), results.labels, list[Row]()
    shown = members(part)
    for attack, eps in shown:
        here = [(model, averages.get(model, attack, eps)) for model in averages.models]
        for i, (model, numbers) in enumerate((model, x) for model, x in here if x is not None):
            entries = tuple(_entries(numbers, (*METHODS, CONTROL)))
            rows.append(Row((labels["attack"][attack], eps, labels["model"][model]), entries, rule=i == 0 and bool(rows)))
    columns = [column for method in METHODS for column in _pair(TITLES[method])] + _pair("threshold, attack-calibrated")
    about = {labels["attack"][attack]: [(attack, eps)] for attack, eps in shown}
    short = (
        f"Coverage (in %) and mean number of classes of conformal sets calibrated to {100 * LEVEL:g} % on a random half"
        f" of the clean samples and evaluated on the other half [95 % interval], {over(averages, about)}. {_spread(sizes)}"
        " Attack-calibrated: the control, calibrated on the first half under the same attack."
        f" RAPS: penalty {PENALTY:g} beyond {FREE} class."
    )
    short = f"{short} {missing(part, averages, shown)}".rstrip()
    return _table("conformal", short, ("Attack", "Radius", "Model"), columns, rows, part.cells)


def _spread(sizes: Sequence[int]) -> str:
    """How far the coverage on clean images may be off by chance of the calibration samples alone."""
    n = min(sizes, default=0)
    low, high = (100 * limit for limit in coverage_limits(n, LEVEL))
    return f"A threshold from {n} samples covers {low:.1f} to {high:.1f} % of further clean ones in 95 % of draws."


def _every_set(results: Results, found: Mapping[str, Sets], lacking: Mapping[str, str]) -> Table:
    labels, rows, last = results.labels, list[Row](), ("", "")
    held = [cell for cell in results.cells if cell.id in found]
    cells = [cell for member in members(results) for cell in held if (cell.attack, cell.eps) == member]
    for cell in cells:
        sets = found[cell.id]
        coverage, size, *control = _entries(sets.numbers, ("threshold", CONTROL))
        names = (labels["attack"][cell.attack], cell.eps, labels["model"][cell.model], labels["dataset"][cell.dataset])
        entries = (coverage, Entry(*sets.lowest), size, *control)
        rows.append(Row(names, entries, rule=(cell.attack, cell.eps) != last and bool(rows)))
        last = (cell.attack, cell.eps)
    columns = [Column("coverage", "threshold", True, "", True), Column("lowest class", "threshold", True, "", True)]
    columns += [Column("size", "threshold", False, "", True, 2), *_pair("threshold, attack-calibrated")]
    short = (
        f"Coverage and size of threshold sets calibrated to {100 * LEVEL:g} % on clean samples, on every data set. Lowest class:"
        " the coverage of the class that is covered least; its interval holds for all classes at once."
    )
    if lacking:
        names_of = labels["dataset"]
        short += f" Left out: {sentence(f'{names_of.get(name, name)} ({why})' for name, why in lacking.items())}."
    return _table("conformal-sets", short, ("Attack", "Radius", "Model", "Data set"), columns, rows, cells)


def _table(
    name: str, short: str, labels: Sequence[str], columns: Sequence[Column], rows: Sequence[Row], cells: Sequence[Measured]
) -> Table:
    versions = cells[0].run.header.get("versions", {}) if cells else {}
    caption = f"{short} {protocol([cell.meta for cell in cells], versions)}" if cells else short
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), short=short)
