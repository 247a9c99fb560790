"""The numbers of one cell with draws that say how sure each is: bootstrap, outcomes not seen, closed-form limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import ndtri, stdtrit

from ..registry import register
from ..types import Records
from .catalogue import CELL_METRICS, Metric, declared, metric_function, needs_clean
from .proportions import Samples, average_limits, shares_of
from .resample import Inputs, Resamples, read_only, values_and_draws
from .unseen import Pseudo, displacements

T = TypeVar("T")


class Interval(NamedTuple):
    """A value and its confidence limits."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Replicates:
    """Values of metrics and, for each, draws (R,) whose percentiles are an interval for the true value.

    Draws of cells on the same samples are paired; those of other samples are independent. So averages, differences
    and functions of values carry their uncertainty along: apply the same function to the draws.
    `unseen` is the part of the draws that stands for outcomes no sample had, see `report.unseen`. `limits` holds
    closed-form intervals, where there is a better one than percentiles. `plain` holds the bootstrap
    of the values themselves where draws are something else and comparisons use it, see `Means.compared`. `tested` names
    the values whose draws are those of an inverted test. `samples` says what each cell was measured on; `outcomes`
    holds, cell by cell, the 0/1 of every sample for names that are shares of samples. `flags` are the validity flags of all
    cells that the values come from.
    """

    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray]
    limits: Mapping[str, tuple[float, float]]
    plain: Mapping[str, np.ndarray] = field(default_factory=dict)
    tested: frozenset[str] = frozenset()
    samples: tuple[Samples, ...] = ()
    outcomes: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    unseen: Mapping[str, np.ndarray] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

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
    inputs: list[Inputs] = [(records, clean) if clean is not None and needs_clean(metric) else (records,) for metric in metrics]
    functions = [metric_function(metric) for metric in metrics]
    found, drawn = values_and_draws(functions, inputs, resamples)
    values = {name: float(number) for value in found for name, number in value.items()}
    shares = joined_names(shares_of(value) for value in found)
    samples = ((resamples.seed, resamples.key, n),)

    draws = joined_names(each.draws for each in drawn)
    draws = {name: x if name in shares else stretched(x, n) for name, x in draws.items()}
    pseudo = Pseudo.of(records, resamples.count, f"{resamples.seed}/{resamples.key}")
    steps = joined_names(displacements(*given, pseudo) for given in zip(found, functions, inputs, strict=True))
    steps |= {name: pseudo.of_share(values[name]) * n / len(share.hits) for name, share in shares.items()}
    ranges = joined_names(ranges_of(metric) for metric in metrics)

    def within(name: str, x: np.ndarray) -> np.ndarray:
        return _within(x, values.get(name, np.nan), ranges.get(name))

    whole = {name: within(name, x + steps.get(name, 0.0)) for name, x in draws.items()}
    return Replicates(
        values, whole,
        limits={name: average_limits([share.hits], samples, level) for name, share in shares.items()},
        plain={name: stretched(x, n) + steps.get(name, 0.0) for each in drawn for name, x in each.plain.items()},
        tested=frozenset(name for value in found for name in getattr(value, "tested", ())),
        samples=samples,
        outcomes={name: (share.hits,) for name, share in shares.items() if share.of_all},
        # Of draws in range as well, so that an average that leaves some of these steps out stays in range too.
        unseen={name: whole[name] - within(name, draws[name]) for name in steps},
    )  # fmt: skip


def joined_names(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """What several metrics returned, by name."""
    return {name: found for part in parts for name, found in part.items()}


def _within(draws: np.ndarray, value: float, limits: tuple[float, float] | None) -> np.ndarray:
    """Draws kept in the range of a number; all of them where the number itself is outside."""
    return draws if limits is None or not limits[0] <= value <= limits[1] else draws.clip(*limits)


def ranges_of(metric: Metric) -> dict[str, tuple[float, float]]:
    """The least and the most that a metric's numbers can be, where that is known.

    A metric declares ``least``; fractions are at most 1, and at least 0 where more, or less, is better.
    """
    stated = declared(metric)
    least = {} if callable(metric) else register.metric.get(register.metric.spec(metric).name).meta.get("least", {})
    found = {}
    for name, (way, unit) in stated.items():
        if name in least or unit == "fraction":
            low = least.get(name, 0 if way in ("higher", "lower") else -1)
            found[name] = (float(low), 1.0 if unit == "fraction" else np.inf)
    return found



def stretched(draws: np.ndarray, n: int) -> np.ndarray:
    """Draws as wide as n samples ask for: about their median, by Student's t and n / (n - 1) for the variance.

    Hesterberg (2015, section 4.3) narrows the percentiles instead, which cannot leave the range of two samples. One sample
    says nothing about spread: nan.
    """
    if n < 2 or not np.isfinite(draws).any():
        return np.full_like(draws, np.nan)
    middle = np.nanmedian(draws)
    return np.asarray(middle + (draws - middle) * stretch(n))


def stretch(n: int) -> float:
    """Width of a t-interval of n samples over that of a normal one with the variance of n, not n - 1, in the denominator."""
    return float(stdtrit(n - 1, 0.975) / ndtri(0.975) * np.sqrt(n / (n - 1))) if n > 1 else float("nan")


def summarise(
    records: Records, metrics: Iterable[Metric] = CELL_METRICS, resamples: int | Resamples = 1000, seed: int = 0,
    level: float = 0.95, clean: Records | None = None,
) -> dict[str, Interval]:  # fmt: skip
    """Value and confidence limits of every number these metrics return; arguments as in `replicates`."""
    drawn = replicates(records, metrics, resamples, seed, level, clean)
    return {name: drawn.interval(name, level) for name in drawn.values}
