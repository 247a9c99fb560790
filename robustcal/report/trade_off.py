"""The layout `trade-off`: models that differ in one strength, and what clean accuracy buys under attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..registry import objectives, parse_spec
from ..types import UserError, parse_radius
from .again import members
from .averages import SINGLE, Averages, Member, entry_of
from .captions import protocol
from .evaluate import Results
from .stats import Interval, Replicates, interval
from .tables import Column, Entry, Row, Table
from .words import METRICS

#: A strength that a training may have besides the parameters of its objective.
RADIUS = "training radius"
#: What a point of a curve is: (clean accuracy, robust accuracy, attacked ECE), values () or draws (R,).
Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Family:
    """Models that differ in one number: what they share, the number's name, and strength -> model, ascending."""

    title: str
    parameter: str
    models: Mapping[float, str]

    def written(self, strength: float) -> str:
        """A strength as it is read: radii over 255."""
        return f"{strength:g}/255" if self.parameter == RADIUS else f"{strength:g}"


@dataclass(frozen=True)
class Point:
    """One model of a family under one attack, averages over data sets."""

    strength: float
    model: str
    clean: Replicates
    attacked: Replicates

    def triple(self, draws: bool) -> Triple:
        """Clean accuracy, robust accuracy and attacked ECE: values, or their draws."""
        found = [(self.clean, "accuracy"), (self.attacked, "accuracy"), (self.attacked, "ece")]
        one, two, three = (np.asarray((numbers.draws if draws else numbers.values)[name], np.float64) for numbers, name in found)
        return one, two, three


# -- families ----------------------------------------------------------------------------------------------------------
def families(results: Results) -> list[Family]:
    """Models whose specs, or whose trainings, are alike but for one number; interpolations with both their ends."""
    models = {cell.model: cell.meta.training for cell in results.cells if cell.meta.task == SINGLE}
    specs = {model: parse_spec(model.split(" #")[0]) for model in models}
    groups: dict[tuple[str, str], dict[float, str]] = {}
    titles: dict[tuple[str, str], str] = {}
    for model, spec in specs.items():
        head = ":".join(filter(None, [spec.name, spec.variant]))
        for key, rest, value in _numbers(spec.params):
            groups.setdefault((f"{head} {rest}".strip(), key), {})[value] = model
    for model, training in models.items():
        facts = _facts(training or {})
        for key, rest, value in _numbers(facts):
            groups.setdefault((rest, key), {}).setdefault(value, model)
            if RADIUS in facts and training:  # the rest holds hashes
                given = parse_spec(str(training["objective"]))
                others = (f"{name}={said}" for name, said in given.params.items() if name != key)
                titles[rest, key] = ":".join([given.name, *others])
    found = []
    for (rest, key), members_of in groups.items():
        title = titles.get((rest, key), rest)
        first = specs[next(iter(members_of.values()))]
        if first.name == "interpolate" and key == "t":
            for end, name in ((0.0, first.params.get("a")), (1.0, first.params.get("b"))):
                if known := _called(results, name):
                    members_of.setdefault(end, known)
        if len(members_of) > 1:
            found.append(Family(title, key, dict(sorted(members_of.items()))))
    return found


def _facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """What a training says but its seed; where it says all, its objective's parameters and its radius (over 255) are apart."""
    facts = {key: fact for key, fact in training.items() if key != "seed"}
    if not {"besides", "objective", "radius", "method"} <= facts.keys():
        return facts
    for key in ("settings", "inner"):  # of both; what else they hold is in `besides`
        facts.pop(key, None)
    try:
        spec = parse_spec(str(facts.pop("objective")))
        radius = float(parse_radius(facts.pop("radius")) * 255)
    except UserError:  # a run of strangers may say anything
        return facts
    given = {key: value for key, value in spec.params.items() if value != "scaled"}
    with suppress(UserError):  # an objective of somebody's own file has what is given
        given = dict(objectives.spec(replace(spec, params=given)).params)  # defaults written out
    return {**facts, "objective": spec.name, **given, **{k: v for k, v in spec.params.items() if v == "scaled"}, RADIUS: radius}


def _numbers(params: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Each number among parameters: its name, the other parameters as a text, and its value."""
    for key, value in params.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        rest = {name: other for name, other in sorted(params.items()) if name != key and other not in (None, "none")}
        yield key, " ".join(f"{name}={other}" for name, other in rest.items()), number


def _called(results: Results, name: object) -> str | None:
    try:
        return results.model(str(name))
    except UserError:
        return None


# -- curves ------------------------------------------------------------------------------------------------------------
def points(averages: Averages, family: Family, member: Member) -> list[Point]:
    """The models of a family under one attack, in order of strength; those without its cells are left out."""
    sets = averages.sets(averages.clean_member, member)
    found = [(s, m, averages.clean(m, sets), averages.get(m, *member, sets)) for s, m in family.models.items()]
    return [Point(s, m, clean, attacked) for s, m, clean, attacked in found if clean and attacked and _whole(attacked)]


def _whole(numbers: Replicates) -> bool:
    return "accuracy" in numbers.values and "ece" in numbers.values


def area(clean: np.ndarray, robust: np.ndarray) -> np.ndarray:
    """Area of all (clean, robust) accuracies that a point reaches in both: points (K, ...) -> (...), in [0, 1].

    The hypervolume of two objectives (Zitzler and Thiele 1999) above no accuracy at all.
    """
    order = np.argsort(-clean, axis=0, kind="stable")
    x, y = (np.take_along_axis(values, order, axis=0) for values in (clean, robust))
    below = np.concatenate([x[1:], np.zeros_like(x[:1])])
    return np.asarray(((x - below) * np.maximum.accumulate(y, axis=0)).sum(0))


def at_clean(curve: Triple, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Robust accuracy and attacked ECE (R,) where a curve (K, R) crosses a clean accuracy, linear between its points.

    Of several crossings the one with the highest robust accuracy; of none, the point with the nearest clean accuracy.
    """
    clean, robust, ece = curve
    columns = np.arange(clean.shape[1])
    nearest = np.abs(clean - level).argmin(0)
    best, error = np.full(len(columns), -np.inf), ece[nearest, columns]
    for i in range(len(clean) - 1):
        step = clean[i + 1] - clean[i]
        share = (level - clean[i]) / np.where(step == 0, np.nan, step)
        value = robust[i] + share * (robust[i + 1] - robust[i])
        better = (share >= 0) & (share <= 1) & (value > best)
        best = np.where(better, value, best)
        error = np.where(better, ece[i] + share * (ece[i + 1] - ece[i]), error)
    return np.where(np.isfinite(best), best, robust[nearest, columns]), error


def stacked(found: Sequence[Point], draws: bool) -> Triple:
    """Points of a curve as arrays (K, R); R is 1 for the values."""
    parts = zip(*(point.triple(draws) for point in found), strict=True)
    one, two, three = (np.stack([np.atleast_1d(value) for value in values]) for values in parts)
    return one, two, three


def equal_clean(curves: Sequence[Triple]) -> float | None:
    """The largest clean accuracy that every curve comes down to; None where one of them lies below it altogether."""
    level = max(float(clean.min()) for clean, _, _ in curves)
    return level if all(float(clean.max()) >= level for clean, _, _ in curves) else None


# -- the layout --------------------------------------------------------------------------------------------------------
def trade_off_tables(results: Results) -> list[Table]:
    """Every family under every attack, point by point; and its area and its point of equal clean accuracy."""
    found, averages = families(results), Averages(results, SINGLE)
    return [_points(results, averages, found), _curves(results, averages, found)] if found else []


def attacked(results: Results) -> list[Member]:
    """Attacks and radii that a trade-off is about."""
    return members(results, ("control", "white-box", "black-box", "transfer", "shift", "worst"))


def _points(results: Results, averages: Averages, found: Sequence[Family]) -> Table:
    rows, labels = list[Row](), results.labels
    for member in attacked(results):
        for family in found:
            for i, point in enumerate(points(averages, family, member)):
                strength = f"{family.parameter}={family.written(point.strength)}"
                names = (labels["attack"][member[0]], member[1], family.title, strength, labels["model"][point.model])
                numbers = ((point.clean, "accuracy"), (point.attacked, "accuracy"), (point.attacked, "ece"))
                rows.append(Row(names, tuple(entry_of(x, number) for x, number in numbers), rule=i == 0 and bool(rows)))
    columns = [Column("clean Acc", "", True, "higher", True), Column("Acc", "attacked", True, "higher", True)]
    columns.append(Column("ECE", "attacked", True, METRICS["ece"].better, True))
    short = "Models that differ in one number: clean accuracy, and accuracy and ECE under attack (in %) [95 % interval]."
    heads = ("Attack", "Radius", "Family", "Strength", "Model")
    return _table("trade-off", f"{short} {_sets(averages)}", heads, columns, rows, results)


def _curves(results: Results, averages: Averages, found: Sequence[Family]) -> Table:
    rows = list[Row]()
    for member in attacked(results):
        curves = [(family, points(averages, family, member)) for family in found]
        curves = [(family, curve) for family, curve in curves if len(curve) > 1]
        level = equal_clean([stacked(curve, draws=False) for _, curve in curves]) if curves else None
        titles = [family.title for family, _ in curves]
        for i, (family, curve) in enumerate(curves):
            title = f"{family.title}, {family.parameter}" if titles.count(family.title) > 1 else family.title
            names = (results.labels["attack"][member[0]], member[1], title)
            rows.append(Row(names, tuple(_summary(curve, level)), rule=i == 0 and bool(rows)))
    columns = [Column("area", "", True, "higher", True), Column("clean Acc", "equal clean accuracy", True, "", False)]
    columns += [Column(title, "equal clean accuracy", True, way, True) for title, way in (("Acc", "higher"), ("ECE", "lower"))]
    short = (
        "Area (in %): of all pairs of clean and robust accuracy that a model of the family reaches in both. Equal clean"
        " accuracy: robust accuracy and attacked ECE where each family's curve, linear between its models, crosses the"
        f" largest clean accuracy that all families come down to [95 % interval]. {_sets(averages)}"
    )
    return _table("trade-off-area", short, ("Attack", "Radius", "Family"), columns, rows, results)


def _summary(curve: Sequence[Point], level: float | None) -> Iterator[Entry]:
    value, draws = stacked(curve, draws=False), stacked(curve, draws=True)
    yield Entry(*_interval(area(*value[:2]), area(*draws[:2])))
    if level is None:
        yield from (Entry(), Entry(), Entry())
        return
    yield Entry(level)
    for one, many in zip(at_clean(value, level), at_clean(draws, level), strict=True):
        yield Entry(*_interval(one, many))


def _interval(value: np.ndarray, draws: np.ndarray) -> Interval:
    return interval(float(value[0]), draws)


def _sets(averages: Averages) -> str:
    count = len(averages.datasets)
    return "One data set." if count == 1 else f"Averages over those of {count} data sets that all shown models have."


def _table(
    name: str, short: str, labels: Sequence[str], columns: Sequence[Column], rows: Sequence[Row], results: Results
) -> Table:
    caption = f"{short} {protocol([cell.meta for cell in results.cells], results.cells[0].run.header.get('versions', {}))}"
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), short=short)
