"""Confidence intervals for every metric, averages over datasets, and paired comparisons of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from ..metrics.accuracy import harmonic_mean
from ..types import Records
from .catalogue import CELL_METRICS, Metric, direction_of, metric_function
from .proportions import average_limits, joined, sign_test
from .replicates import Interval, Replicates, interval, replicates, summarise
from .resample import Resamples

__all__ = [
    "CELL_METRICS", "Difference", "Interval", "Replicates", "Spread", "average", "compare", "difference", "direction_of",
    "flags_of", "harmonic", "holm", "interval", "mark", "metric_function", "replicates", "seed_spread", "summarise",
]  # fmt: skip

#: Fewest samples of a cell, or of all cells of an average, for which a test that is not exact makes a claim.
FEWEST = 20


class Difference(NamedTuple):
    """A difference, its confidence limits, and the two-sided p-value of "no difference"."""

    value: float
    lo: float
    hi: float
    p: float


# -- combining cells ---------------------------------------------------------------------------------------------
def average(cells: Sequence[Replicates]) -> Replicates:
    """Unweighted mean over cells (datasets) of every value that all of them have.

    Outcomes that no sample had count for one cell in each draw: added up over all cells they would make an average less
    certain the more cells it has, while all those samples together have seen none.
    """
    names = [name for name in cells[0].values if all(name in cell.values for cell in cells)]
    samples = tuple(found for cell in cells for found in cell.samples)
    if len(cells) == 1:
        return cells[0]
    picked = _one_cell_a_draw(cells)

    draws = {name: np.mean([cell.draws[name] for cell in cells], axis=0) for name in names}
    shared = [name for name in names if all(name in cell.plain for cell in cells)]
    plain = {name: np.mean([cell.plain[name] for cell in cells], axis=0) for name in shared}
    unseen = {}
    for name in names:
        steps = [(cell.unseen[name], pick) for cell, pick in zip(cells, picked, strict=True) if name in cell.unseen]
        if steps:
            unseen[name] = np.sum([step * pick for step, pick in steps], axis=0) / len(cells)
            left_out = np.sum([step * ~pick for step, pick in steps], axis=0) / len(cells)
            draws[name] = draws[name] - left_out
            plain |= {name: plain[name] - left_out} if name in plain else {}
    tested = frozenset(name for name in names if all(name in cell.tested for cell in cells))
    draws |= {name: _with_zero(draws[name], [cell.draws[name] - cell.unseen.get(name, 0.0) for cell in cells]) for name in tested}
    values = {name: float(np.mean([cell.values[name] for cell in cells])) for name in names}
    outcomes = joined([cell.outcomes for cell in cells])
    limits = {name: average_limits(found, samples) for name, found in outcomes.items()}
    return Replicates(values, draws, limits, plain, tested, samples, outcomes, unseen, flags_of(cells))


def flags_of(parts: Iterable[Replicates]) -> tuple[str, ...]:
    """The flags of several cells, each once."""
    return tuple(dict.fromkeys(flag for part in parts for flag in part.flags))


def _with_zero(draws: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Draws of a mean of errors that cannot be negative, as many of them 0 as noise alone would explain all parts together.

    The share of a part's draws at 0 is the p-value of "no error"; those of independent parts are combined as in Stouffer et
    al. (1949). Without this, five errors that are all noise would make a mean that is none.
    """
    if not len(draws) or not np.isfinite(draws).all():
        return draws
    zero = np.array([np.mean(part <= 1e-12) for part in parts]).clip(0.5 / len(draws), 1 - 0.5 / len(draws))
    share = float(ndtr(ndtri(zero).sum() / np.sqrt(len(parts))))
    lowest = np.argsort(draws, kind="stable")[: int(share * len(draws))]
    return np.where(np.isin(np.arange(len(draws)), lowest), 0.0, draws)


def _one_cell_a_draw(cells: Sequence[Replicates]) -> np.ndarray:
    """Whose unseen outcome counts in each draw: (cells, R) bool, one cell a draw, more often one of few samples."""
    draws = max((len(found) for cell in cells for found in cell.draws.values()), default=0)
    sizes = np.array([max(sum(n for _, _, n in cell.samples), 1) for cell in cells])
    chosen = np.random.default_rng(len(cells)).choice(len(cells), draws, p=(1 / sizes) / (1 / sizes).sum())
    return np.asarray(chosen == np.arange(len(cells))[:, None])


def harmonic(clean: Replicates, attacked: Replicates, of: str = "accuracy", name: str = "h") -> Replicates | None:
    """H, the harmonic mean of two values, under the name given; None where either has no such value.

    Pass two `average(...)` for the H of the literature's tables.
    """
    if of not in clean.values or of not in attacked.values:
        return None
    value = float(harmonic_mean(clean.values[of], attacked.values[of]))
    draws = harmonic_mean(clean.draws[of], attacked.draws[of])
    seen = harmonic_mean(*(x.draws[of] - x.unseen.get(of, 0.0) for x in (clean, attacked)))
    flags = flags_of((clean, attacked))
    return Replicates({name: value}, {name: draws}, {}, samples=attacked.samples, unseen={name: draws - seen}, flags=flags)


def difference(a: Replicates, b: Replicates, name: str, level: float = 0.95) -> Difference:
    """b - a with limits and the p-value of "equal": paired where both are on the same samples.

    Shares of the same samples (accuracy) have the exact test of `proportions.sign_test`. For all else the p-value takes
    the draws of the difference as normal around their mean, so it is not bounded by the number of resamples and can
    survive a correction for many comparisons. Where both have a `plain` bootstrap of the value, it is that one's
    spread around the difference itself; the limits stay those of the draws. p is nan, no claim, below `FEWEST` samples
    unless the test is exact, and never 0.
    """
    value, draws = b.values[name] - a.values[name], b.draws[name] - a.draws[name]
    found = interval(value, draws, level)
    if name in a.outcomes and name in b.outcomes and a.samples == b.samples:
        p = sign_test(a.outcomes[name], b.outcomes[name], a.samples)
    else:
        p = _normal_p(a, b, name, value, draws)
    return Difference(*found, max(p, np.finfo(float).tiny) if p == p else p)


def _normal_p(a: Replicates, b: Replicates, name: str, value: float, draws: np.ndarray) -> float:
    sizes = [n for x in (a, b) for _, _, n in x.samples]
    if sizes and min(sum(n for _, _, n in set(x.samples)) for x in (a, b)) < FEWEST:
        return float("nan")
    tested, centre = draws, float(draws.mean()) if len(draws) else float("nan")
    if name in a.plain and name in b.plain:
        tested, centre = b.plain[name] - a.plain[name], value
    spread = float(tested.std(ddof=1)) if len(tested) > 1 else float("nan")
    if not spread > 1e-6 * abs(centre) and spread == spread:  # float32 draws that do not vary differ by less
        return 1 / (len(tested) + 1) if abs(centre) > 1e-12 else 1.0
    if not sizes:
        return float(2 * ndtr(-abs(centre) / spread))
    df = max(min(sizes) - 1, 1)  # the draws are as wide as t asks for at 95 %: undone, so that p is right at all levels
    return float(2 * stdtr(df, -abs(centre) / spread * stdtrit(df, 0.975) / ndtri(0.975)))


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
    sizes = [({name: abs(x.values[name])}, {name: np.abs(x.draws[name])}, x.samples) for x in (best, other)]
    one, two = (Replicates(values, draws, {}, samples=samples) for values, draws, samples in sizes)
    return difference(one, two, name).p


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
    known = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    n = len(known)
    mean = float(known.mean()) if n else float("nan")
    if n < 2:
        return Spread(mean, float("nan"), float("nan"), float("nan"), n)
    deviation = float(known.std(ddof=1))
    width = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / np.sqrt(n)
    return Spread(mean, deviation, mean - width, mean + width, n)
