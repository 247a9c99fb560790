"""Metric values that can be re-evaluated under many sample weights at once: what makes the bootstrap fast.

A metric may always return a plain ``{name: value}``. Returning one of these instead (they are mappings too) lets
`report.stats` resample it without calling it a thousand times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Values = dict[str, np.ndarray]
#: (means (K,), resampled means (R, K)) -> (R,)
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Weighted(Mapping[str, float]):
    """Values of a metric, and the function that yields them for any sample weights.

    Args:
        evaluate: weights (R, N), non-negative, usually resample counts -> {name: (R,)}.
        n: number of samples N.
        draws: like `evaluate`, for values whose plain bootstrap is biased: draws whose percentiles are an interval
            for the truth. Names it leaves out are those of `evaluate`.
        tested: names whose draws are those of an inverted test, see `metrics.debias`.
        shares: whether every value is a share of samples, or of comparisons between samples, in [0, 1]: what an outcome
            that was not seen would change is then known without calling the metric again.
    """

    def __init__(
        self, evaluate: Callable[[np.ndarray], Values], n: int, draws: Callable[[np.ndarray], Values] | None = None,
        tested: tuple[str, ...] = (), shares: bool = False,
    ):  # fmt: skip
        self.evaluate, self.n, self.draws, self.tested, self.shares = evaluate, n, draws or evaluate, tested, shares
        self._values: dict[str, float] | None = None

    def _once(self) -> dict[str, float]:
        if self._values is None:
            found = self.evaluate(np.ones((1, self.n)))
            self._values = {name: float(value[0]) for name, value in found.items()}
        return self._values

    def __getitem__(self, name: str) -> float:
        return self._once()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._once())

    def __len__(self) -> int:
        return len(self._once())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._once()})"


class Means(Mapping[str, float]):
    """Values that depend on the samples only through the means of per-sample columns.

    Resampling is then one matrix product, weights (R, N) @ columns (N, K).

    Args:
        columns: (N, K) numbers, one row per sample; an array or a scipy sparse matrix.
        combine: means (..., K) -> {name: (...)}.
        rules: for names whose plain bootstrap is biased, a rule for draws (R,) whose percentiles are an interval for
            the truth; it replaces ``combine(resampled)`` wherever intervals and differences are made.
        alike: names that estimate the same truth as another: they have its draws, ``{name: of}``.
        compared: names of `rules` whose values, biased alike, are nevertheless compared by their plain bootstrap: draws
            for the truth are wary, and a difference of two would be taken for chance too often.
    """

    def __init__(
        self,
        columns: np.ndarray,
        combine: Callable[[np.ndarray], Values],
        rules: Mapping[str, Rule] | None = None,
        compared: tuple[str, ...] = (),
        alike: Mapping[str, str] | None = None,
    ):
        self.columns, self.combine, self.compared = columns, combine, compared
        self.rules, self.alike = dict(rules or {}), dict(alike or {})
        self._values: dict[str, float] | None = None

    @property
    def n(self) -> int:
        return int(self.columns.shape[0])

    @property
    def tested(self) -> tuple[str, ...]:
        """Names whose draws are those of an inverted test, see `metrics.debias`."""
        return (*self.rules, *self.alike)

    @property
    def means(self) -> np.ndarray:
        """Means of the columns: (K,) float64; nan where there are no samples."""
        if self.n == 0:
            return np.full(self.columns.shape[1], np.nan)
        return np.asarray(self.columns.mean(axis=0, dtype=np.float64)).reshape(-1)

    def drawn(self, resampled: np.ndarray) -> Values:
        """Draws (R,) of every value from resampled means (R, K)."""
        return self.drawn_and_plain(resampled)[0]

    def drawn_and_plain(self, resampled: np.ndarray) -> tuple[Values, Values]:
        """The draws, and the plain bootstrap of the names in `compared`."""
        plain = self.combine(resampled)
        drawn = plain | {name: rule(self.means, resampled) for name, rule in self.rules.items()}
        return self.paired(drawn), {name: plain[name] for name in self.compared}

    def paired(self, values: Values) -> Values:
        """These values, names of `alike` taking that of the other."""
        return values | {name: values[of] for name, of in self.alike.items() if of in values}

    def _once(self) -> dict[str, float]:
        if self._values is None:
            self._values = {name: float(value) for name, value in self.combine(self.means).items()}
        return self._values

    def __getitem__(self, name: str) -> float:
        return self._once()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._once())

    def __len__(self) -> int:
        return len(self._once())

    def __repr__(self) -> str:
        return f"Means({self._once()})"
