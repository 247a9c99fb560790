"""Confidence intervals for every metric, averages over datasets, and paired comparisons of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from ..metrics.accuracy import harmonic_mean
from ..metrics.weighted import Means
from ..types import Records
from .catalogue import CELL_METRICS, Metric, direction_of, metric_function, needs_clean
from .proportions import Samples, average_limits, joined, outcomes_of, sign_test
from .resample import Resamples, read_only, values_and_draws


class Interval(NamedTuple):
    """A value and its confidence limits."""

    value: float
    lo: float
    hi: float


class Difference(NamedTuple):
    """A difference, its confidence limits, and the two-sided p-value of "no difference"."""

    value: float
    lo: float
    hi: float
    p: float


@dataclass(frozen=True)
class Replicates:
    """Values of metrics and, for each, draws (R,) whose percentiles are an interval for the true value.

    Draws of cells on the same samples are paired; those of other samples are independent. So averages, differences
    and functions of values carry their uncertainty along: apply the same function to the draws.
    `limits` holds closed-form intervals, where a metric has a better one than percentiles. `plain` holds the bootstrap
    of the values themselves where draws are something else and comparisons use it, see `Means.compared`. `tested` names
    the values whose draws are those of an inverted test. `samples` says what each cell was measured on; `outcomes`
    holds, cell by cell, the 0/1 of every sample for names that are shares of samples.
    """

    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray]
    limits: Mapping[str, tuple[float, float]]
    plain: Mapping[str, np.ndarray] = field(default_factory=dict)
    tested: frozenset[str] = frozenset()
    samples: tuple[Samples, ...] = ()
    outcomes: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def method(self, name: str) -> str:
        """How the interval of that name was made: "score", "inverted test" or "percentiles"."""
        return "score" if name in self.limits else "inverted test" if name in self.tested else "percentiles"

    def interval(self, name: str, level: float = 0.95) -> Interval:
        """The value of that name with its limits."""
        if name in self.limits:
            return Interval(self.values[name], *self.limits[name])
        return interval(self.values[name], self.draws[name], level)


def interval(value: float, draws: np.ndarray, level: float = 0.95) -> Interval:
    """Equal-tailed percentiles of the draws around a value; nan limits where there are no finite draws."""
    draws = draws[np.isfinite(draws)]
    if not len(draws) or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def replicates(
    records: Records, metrics: Iterable[Metric] = CELL_METRICS, resamples: int | Resamples = 1000, seed: int = 0,
    level: float = 0.95, clean: Records | None = None,
) -> Replicates:  # fmt: skip
    """Every value of these metrics on one cell, with its bootstrap over samples.

    Args:
        metrics: specs (``calibration:bins=20``) or functions of records.
        resamples: how many, or a `Resamples` to share between the cells of a dataset (faster, same draws).
        level: of the closed-form limits.
        clean: records of the same samples without attack; metrics that need them are left out where there are none.
    """
    n = len(records["correct"])
    if not isinstance(resamples, Resamples):
        resamples = Resamples.of(records["id"], resamples, seed) if "id" in records else Resamples(n, resamples, seed)
    metrics = [metric for metric in metrics if clean is not None or not needs_clean(metric)]
    records, clean = read_only(records), None if clean is None else read_only(clean)
    inputs = [(records, clean) if needs_clean(metric) else (records,) for metric in metrics]
    found, drawn, plain = values_and_draws([metric_function(metric) for metric in metrics], inputs, resamples)
    limits, outcomes = {}, {}
    for value in found:
        if isinstance(value, Means) and n:
            limits |= {name: rule(value.means, n, level) for name, rule in value.limits.items()}
            outcomes |= outcomes_of(value)
    values = {name: float(number) for value in found for name, number in value.items()}
    drawn, plain = ({name: part for draws in several for name, part in draws.items()} for several in (drawn, plain))
    tested = frozenset(name for value in found for name in getattr(value, "tested", ()))
    samples = ((resamples.seed, resamples.key, n),)
    return Replicates(values, drawn, limits, plain, tested, samples, outcomes)


def summarise(
    records: Records, metrics: Iterable[Metric] = CELL_METRICS, resamples: int | Resamples = 1000, seed: int = 0,
    level: float = 0.95, clean: Records | None = None,
) -> dict[str, Interval]:  # fmt: skip
    """Value and confidence limits of every number these metrics return; arguments as in `replicates`."""
    drawn = replicates(records, metrics, resamples, seed, level, clean)
    return {name: drawn.interval(name, level) for name in drawn.values}


# -- combining cells ---------------------------------------------------------------------------------------------
def average(cells: Sequence[Replicates]) -> Replicates:
    """Unweighted mean over cells (datasets) of every value that all of them have."""
    names = [name for name in cells[0].values if all(name in cell.values for cell in cells)]
    draws = {name: np.mean([cell.draws[name] for cell in cells], axis=0) for name in names}
    samples = sum((cell.samples for cell in cells), ())
    outcomes = joined([cell.outcomes for cell in cells])
    if len(cells) == 1:
        limits = dict(cells[0].limits)
    else:
        limits = {name: average_limits(found, samples) for name, found in outcomes.items()}
    plain = {n: np.mean([c.plain[n] for c in cells], axis=0) for n in names if all(n in c.plain for c in cells)}
    values = {name: float(np.mean([cell.values[name] for cell in cells])) for name in names}
    return Replicates(values, draws, limits, plain, samples=samples, outcomes=outcomes)


def harmonic(clean: Replicates, attacked: Replicates, of: str = "accuracy", name: str = "h") -> Replicates | None:
    """H, the harmonic mean of two values, under the name given; None where either has no such value.

    Pass two `average(...)` for the H of the literature's tables.
    """
    if of not in clean.values or of not in attacked.values:
        return None
    value = float(harmonic_mean(clean.values[of], attacked.values[of]))
    return Replicates({name: value}, {name: harmonic_mean(clean.draws[of], attacked.draws[of])}, {}, samples=attacked.samples)


def difference(a: Replicates, b: Replicates, name: str, level: float = 0.95) -> Difference:
    """b - a with limits and the p-value of "equal": paired where both are on the same samples.

    Shares of the same samples (accuracy) have the exact test of `proportions.sign_test`. For all else the p-value takes
    the draws of the difference as normal around their mean, so it is not bounded by the number of resamples and can
    survive a correction for many comparisons. Where both have a `plain` bootstrap of the value, it is that one's
    spread around the difference itself; the limits stay those of the draws. Draws that do not vary, as those of one
    sample, count as that many samples of one sign, but never below one in the number of resamples. No p-value is 0.
    """
    value, draws = b.values[name] - a.values[name], b.draws[name] - a.draws[name]
    found = interval(value, draws, level)
    if name in a.outcomes and name in b.outcomes and a.samples == b.samples:
        p = sign_test(a.outcomes[name], b.outcomes[name], a.samples)
    else:
        p = _normal_p(a, b, name, value, draws)
    return Difference(*found, max(p, np.finfo(float).tiny) if p == p else p)


def _normal_p(a: Replicates, b: Replicates, name: str, value: float, draws: np.ndarray) -> float:
    tested, centre = draws, float(draws.mean()) if len(draws) else float("nan")
    if name in a.plain and name in b.plain:
        tested, centre = b.plain[name] - a.plain[name], value
    spread = float(tested.std(ddof=1)) if len(tested) > 1 else float("nan")
    if spread > 1e-6 * abs(centre) or np.isnan(spread):  # float32 draws that do not vary differ by less
        return float(2 * ndtr(-abs(centre) / spread))
    if abs(centre) < 1e-12:
        return 1.0
    known = min(sum(n for _, _, n in set(x.samples)) for x in (a, b))
    return max(1 / (len(tested) + 1), 2.0 ** (1 - known) if known else 0.0)


def compare(
    a: Records, b: Records, metrics: Iterable[Metric] = CELL_METRICS, resamples: int | Resamples = 1000,
    seed: int = 0, level: float = 0.95,
) -> dict[str, Difference]:  # fmt: skip
    """Paired differences b - a of two cells on the same samples in the same order.

    Raises:
        ValueError: the samples are not the same.
    """
    if list(a["id"]) != list(b["id"]):
        raise ValueError("a paired comparison needs the same samples in the same order")
    shared = resamples if isinstance(resamples, Resamples) else Resamples.of(a["id"], resamples, seed)
    metrics = list(metrics)
    one, other = replicates(a, metrics, shared), replicates(b, metrics, shared)
    return {name: difference(one, other, name, level) for name in one.values if name in other.values}


def holm(pvalues: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down adjusted p-values (m,): below alpha means significant at family-wise level alpha.

    nan stays nan and does not count as a comparison.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    steps = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def mark(
    cells: Mapping[str, Replicates], name: str, alpha: float = 0.05, direction: str | None = None
) -> dict[str, str]:
    """Which of several models to set in bold: "best", "best-not-significant", "second" or "".

    "best" is better than every other model after Holm's correction over those comparisons; where it is not
    significantly better it is "best-not-significant". Missing values are never marked; a name without a direction
    marks nothing.
    """
    direction = direction or direction_of(name)
    marks = dict.fromkeys(cells, "")
    known = [key for key in cells if np.isfinite(cells[key].values.get(name, np.nan))]
    if direction not in ("higher", "lower", "zero") or not known:
        return marks
    badness = {"higher": lambda x: -x, "lower": lambda x: x, "zero": abs}[direction]
    ranked = sorted(known, key=lambda key: badness(cells[key].values[name]))
    first, *others = ranked
    adjusted = holm([_better(cells[first], cells[key], name, direction) for key in others])
    marks[first] = "best" if others and bool((adjusted < alpha).all()) else "best-not-significant"
    if others:
        marks[others[0]] = "second"
    return marks


def _better(best: Replicates, other: Replicates, name: str, direction: str) -> float:
    if direction != "zero":
        return difference(best, other, name).p
    absolute = [
        Replicates({name: abs(x.values[name])}, {name: np.abs(x.draws[name])}, {}, samples=x.samples) for x in (best, other)
    ]
    return difference(*absolute, name).p


# -- seeds -------------------------------------------------------------------------------------------------------
class Spread(NamedTuple):
    """Values of several training seeds: mean, standard deviation, t-limits of the mean, and how many there are."""

    mean: float
    deviation: float
    lo: float
    hi: float
    seeds: int


def seed_spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Spread over independently trained models; with one value the deviation and the limits are nan."""
    values = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Spread(mean, float("nan"), float("nan"), float("nan"), n)
    deviation = float(values.std(ddof=1))
    width = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / np.sqrt(n)
    return Spread(mean, deviation, mean - width, mean + width, n)
