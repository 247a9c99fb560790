"""The layout `premise`: whether uncertainty grows as inputs get harder, and whether it tells which predictions are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..metrics.rank import RankCorrelation
from ..metrics.validity import LEVEL
from ..registry import parse_spec
from ..types import Records, Spec
from .again import members, readers, usable
from .averages import SINGLE, Averages, Member
from .captions import protocol
from .common import Reader
from .evaluate import Measured, Results
from .replicates import stretched
from .resample import Resamples
from .stats import Replicates, average, difference
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

SUPPRESSED = "uncertainty-suppressed"
COLUMNS = ("id", "correct", "confidence", "entropy", "au", "log_eu")


@dataclass(frozen=True)
class Uncertainty:
    """A reading of uncertainty: its title, its column of the records and the sign that makes larger mean less certain.

    `number` is its mean among a report's numbers.
    """

    title: str
    column: str
    number: str
    sign: int = 1


#: EU is a falling function of alpha_0: their ranks, and so their correlations, are the same.
UNCERTAINTIES = (
    Uncertainty("1 - confidence", "confidence", "confidence", -1), Uncertainty("entropy", "entropy", "entropy"),
    Uncertainty("AU", "au", "au"), Uncertainty("EU", "log_eu", "log10_eu"),
)  # fmt: skip


@dataclass(frozen=True)
class Course:
    """One attack or shift at rising strength.

    Attributes:
        title: what rises, and of what: ``radius, pgd``.
        names, strengths, steps: of every step its name, its number, and its attack and radius; the first is clean.
    """

    title: str
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    steps: tuple[Member, ...]


def courses(results: Results) -> list[Course]:
    """Attacks by radius, and shifts by their parameter `severity`, each behind the clean images."""
    cells = [cell for cell in results.cells if usable(cell.meta) and cell.kind != "clean"]
    clean = next(((cell.attack, cell.eps) for cell in results.cells if cell.kind == "clean" and usable(cell.meta)), None)
    found: dict[str, dict[Member, tuple[str, float]]] = {}
    for attack, eps in members(results):
        cell = next((c for c in cells if (c.attack, c.eps) == (attack, eps)), None)
        if cell is None:
            continue
        severity, title = _severity(cell)
        if severity is not None:
            found.setdefault(f"severity, {title}", {})[attack, eps] = (f"{severity:g}", severity)
        elif cell.meta.threat.eps > 0:
            found.setdefault(f"radius, {results.labels['attack'][attack]}", {})[attack, eps] = (eps, cell.meta.threat.eps)
    made = []
    for title, steps in found.items():
        if clean is None:
            break
        ordered = sorted(steps.items(), key=lambda item: item[1][1])
        names, strengths = zip(*(of for _, of in ordered), strict=True)
        made.append(Course(title, ("clean", *names), (0.0, *strengths), (clean, *(step for step, _ in ordered))))
    return made


def _severity(cell: Measured) -> tuple[float | None, str]:
    """The severity of a shift, and its spec without it; None of what has none."""
    spec = parse_spec(cell.attack.split(" #")[0])
    value = spec.params.get("severity") if cell.kind == "shift" else None
    rest = {key: param for key, param in spec.params.items() if key != "severity"}
    return (None if value is None else float(value)), str(Spec(spec.name, spec.variant, rest))


class Correlations:
    """Rank correlations of uncertainties, of the samples that a report compares, with intervals from resampled samples."""

    def __init__(self, results: Results, resamples: int = 1000):
        self.results, self.read, self.resamples = results, readers(results), resamples
        self._shared: dict[str, Resamples] = {}

    def with_strength(self, model: str, dataset: str, course: Course) -> Replicates | None:
        """Of each uncertainty with the strength of a course; None where a step is missing or has other samples."""
        cells = [self.results.get(model, dataset, *step) for step in course.steps]
        rows = [self._reader(cell)(COLUMNS) for cell in cells if cell is not None and usable(cell.meta)]
        if len(rows) < len(course.steps) or any(not np.array_equal(r["id"], rows[0]["id"]) for r in rows):
            return None
        return self._of(dataset, rows, np.array(course.strengths)[:, None])

    def with_wrong(self, cell: Measured) -> Replicates:
        """Of each uncertainty with being wrong."""
        records = self._reader(cell)(COLUMNS)
        return self._of(cell.dataset, [records], ~np.asarray(records["correct"], bool)[None])

    def _reader(self, cell: Measured) -> Reader:
        return self.read[cell.id]

    def _of(self, dataset: str, rows: Sequence[Records], levels: np.ndarray) -> Replicates:
        ids = rows[0]["id"]
        shared = self._shared.setdefault(dataset, Resamples.of(ids, self.resamples))
        if shared.n != len(ids):
            shared = Resamples.of(ids, self.resamples)
        stacked = {u.title: np.stack([u.sign * np.asarray(r[u.column], np.float64) for r in rows]) for u in UNCERTAINTIES}
        rules = {title: RankCorrelation(x, levels) for title, x in stacked.items() if not np.isnan(x).any()}
        values = {title: float(rule(np.ones((1, shared.n)))[0]) for title, rule in rules.items()}
        parts = [{title: rule(counts) for title, rule in rules.items()} for counts in shared.chunks()]
        draws = {title: np.concatenate([part[title] for part in parts]) for title in rules}
        draws = {title: stretched(x, shared.n).clip(-1, 1) for title, x in draws.items()}
        return Replicates(values, draws, {}, samples=((shared.seed, shared.key, shared.n),))


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
    """Correlation of uncertainties with strength, and with being wrong: averages over data sets."""
    found, part = Correlations(results), replace(results, cells=[cell for cell in results.cells if usable(cell.meta)])
    return [_strength(results, part, found), _wrong(results, part, found)] if part.cells else []


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
    caption = f"{short} {protocol([cell.meta for cell in cells], cells[0].run.header.get('versions', {}))}"
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings(), short=short, remarks=tuple(remarks))
