"""The layout `premise`: whether uncertainty grows as inputs get harder, and tells wrong predictions and unknown images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..metrics.validity import LEVEL
from .again import members, usable
from .averages import SINGLE, Averages
from .captions import protocol
from .correlations import UNCERTAINTIES, Correlations, Uncertainty
from .courses import Course, courses
from .evaluate import Measured, Results
from .ood import LABELS, names_of, pairs_of
from .stats import Replicates, average, difference
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

SUPPRESSED = "uncertainty-suppressed"


# -- suppressed uncertainty --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fall:
    """Between which steps of a course a mean uncertainty falls while the accuracy falls too: numbers before and after."""

    before: int
    after: int
    accuracy: tuple[float, float]
    uncertainty: tuple[float, float]


def suppressed(steps: Sequence[Replicates], uncertainty: Uncertainty) -> Fall | None:
    """The largest fall of a mean uncertainty from a step to a stronger one with a lower accuracy; None if there is none.

    Both falls must be significant at the level of flags (two-sided p below 0.002, paired on the samples).
    """
    name, found = uncertainty.number, list[tuple[float, Fall]]()
    for i, before in enumerate(steps):
        for j, after in enumerate(steps[i + 1 :], start=i + 1):
            if not all(key in x.values for key in ("accuracy", name) for x in (before, after)):
                continue
            accuracy, moved = difference(before, after, "accuracy"), difference(before, after, name)
            drop = -uncertainty.sign * moved.value
            if accuracy.value < 0 and drop > 0 and max(accuracy.p, moved.p) < 2 * LEVEL:
                pairs = ((before.values[key], after.values[key]) for key in ("accuracy", name))
                found.append((drop, Fall(i, j, *pairs)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def told(course: Course, model: str, uncertainty: Uncertainty, fall: Fall) -> str:
    """A fall in words."""
    number, (before, after) = uncertainty.number, fall.uncertainty
    what = {"confidence": "1 - confidence", "log10_eu": "log10 EU"}.get(number, uncertainty.title)
    if number == "confidence":
        before, after = 1 - before, 1 - after
    accuracy = " to ".join(f"{100 * value:.1f}" for value in fall.accuracy)
    names = f"{course.names[fall.before]} to {course.names[fall.after]}"
    moved = f"{what} falls from {before:.3g} to {after:.3g} while accuracy falls from {accuracy} %"
    return f"{model}, {course.title}, {names}: {moved}."


# -- the layout --------------------------------------------------------------------------------------------------------
def premise_tables(results: Results) -> list[Table]:
    """Correlation of uncertainties with strength and with being wrong, averages over data sets; and with being unknown."""
    found, part = Correlations(results), replace(results, cells=[cell for cell in results.cells if usable(cell.meta)])
    return [_strength(results, part, found), _wrong(results, part, found), _unknown(results, found)] if part.cells else []


def _mean(parts: Iterator[Replicates | None]) -> Replicates | None:
    found = list(parts)
    known = [x for x in found if x is not None]
    return average(known) if known and len(known) == len(found) else None


def _strength(results: Results, part: Results, found: Correlations) -> Table:
    averages, rows, remarks = Averages(part, SINGLE), list[Row](), list[str]()
    for course in courses(results):
        sets, first = averages.sets(*course.steps), True
        for model in averages.models:
            correlation = _mean(found.with_strength(model, d, course) for d in sets)
            steps = [averages.get(model, *step, sets) for step in course.steps]
            known = [step for step in steps if step is not None]
            if correlation is None or len(known) < len(steps):
                continue
            falls = {u.title: suppressed(known, u) for u in UNCERTAINTIES}
            label = results.labels["model"][model]
            entries = list(_entries(correlation, {title: (SUPPRESSED,) for title, fall in falls.items() if fall}))
            change = difference(known[0], known[-1], "accuracy")
            entries.append(Entry(*change[:3], signed=True))
            rows.append(Row((course.title, label), tuple(entries), rule=first and bool(rows)))
            first = False
            remarks += [told(course, label, u, fall) for u in UNCERTAINTIES if (fall := falls[u.title])]
    short = (
        "Rank correlation (Spearman) of uncertainty with strength, over the clean images and all strengths of an attack or"
        " shift: 1 is the premise that uncertainty grows as inputs get harder [95 % interval]. Acc change: accuracy at the"
        f" largest strength less clean accuracy, in points. {_sets(averages)} That of -log α₀ is the same as that of EU."
    )
    columns = [*_columns(), Column("Acc change", "", True, "", True)]
    return _table("premise", short, ("Strength", "Model"), columns, rows, part.cells, remarks)


def _wrong(results: Results, part: Results, found: Correlations) -> Table:
    averages, rows = Averages(part, SINGLE), list[Row]()
    for attack, eps in members(part):
        first = True
        for model in averages.models:
            cells = [part.get(model, dataset, attack, eps) for dataset in averages.sets((attack, eps))]
            correlation = _mean(found.with_wrong(cell) if cell else None for cell in cells)
            if correlation is not None:
                names = (results.labels["attack"][attack], eps, results.labels["model"][model])
                rows.append(Row(names, tuple(_entries(correlation, {})), rule=first and bool(rows)))
                first = False
    short = (
        "Rank correlation (Spearman) of uncertainty with being wrong, among the images of one attack and radius: 0 where"
        f" uncertainty does not tell which predictions are wrong [95 % interval]; empty where all or none are. {_sets(averages)}"
    )
    return _table("premise-wrong", short, ("Attack", "Radius", "Model"), _columns(), rows, part.cells, ())


def _unknown(results: Results, found: Correlations) -> Table:
    pairs, rows = list(pairs_of(results)), list[Row]()
    for pair in pairs:
        names = names_of(results, pair)
        new = bool(rows) and rows[-1].labels[:-1] != names[:-1]
        rows.append(Row(names, tuple(_entries(found.with_unknown(*pair), {})), rule=new))
    short = (
        "Rank correlation (Spearman) of uncertainty with showing no known class, over the images of a known and of an unknown"
        " set: above 0 where unknown images look less certain [95 % interval]."
    )
    return _table("premise-unknown", short, LABELS, _columns(), rows, [cell for pair in pairs for cell in pair], ())


def _sets(averages: Averages) -> str:
    count = len(averages.datasets)
    return "One data set." if count == 1 else f"Averages over those of {count} data sets that all shown models have."


def _columns() -> list[Column]:
    return [Column(u.title, "", False, "", True, 2) for u in UNCERTAINTIES]


def _entries(numbers: Replicates, flags: Mapping[str, tuple[str, ...]]) -> Iterator[Entry]:
    for u in UNCERTAINTIES:
        known = u.title in numbers.values and np.isfinite(numbers.values[u.title])
        yield Entry(*numbers.interval(u.title), flags.get(u.title, ())) if known else Entry()


def _table(
    name: str, short: str, labels: Sequence[str], columns: Sequence[Column], rows: Sequence[Row], cells: Sequence[Measured],
    remarks: Sequence[str],
) -> Table:  # fmt: skip
    made = protocol([cell.meta for cell in cells], cells[0].run.header.get("versions", {})) if cells else ""
    caption = f"{short} {made}".strip()
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings(), short=short, remarks=tuple(remarks))
