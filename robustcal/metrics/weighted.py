"""Metric values that can be re-evaluated under many sample weights at once: what makes the bootstrap fast.

A metric may always return a plain ``{name: value}``. Returning one of these instead (they are mappings too) lets
`report.stats` resample it without calling it a thousand times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Values = dict[str, np.ndarray]
#: (means (K,), number of samples, level) -> lower and upper limit
Limits = Callable[[np.ndarray, int, float], tuple[float, float]]
#: (means (K,), resampled means (R, K)) -> (R,)
Draws = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Weighted(Mapping[str, float]):
    """Values of a metric, and the function that yields them for any sample weights.

    Args:
        evaluate: weights (R, N), non-negative, usually resample counts -> {name: (R,)}.
        n: number of samples N.
    """

    def __init__(self, evaluate: Callable[[np.ndarray], Values], n: int):
        self.evaluate, self.n = evaluate, n
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


class Means(Weighted):
    """Values that depend on the samples only through the means of per-sample columns.

    Resampling is then one matrix product, weights (R, N) @ columns (N, K).

    Args:
        columns: (N, K) numbers, one row per sample.
        combine: means (..., K) -> {name: (...)}.
        draws: for names whose plain bootstrap is biased: a rule for draws (R,) whose percentiles are an interval for
            the truth. They replace ``combine(resampled)`` wherever intervals and differences are made.
        limits: for names with a closed-form interval better than percentiles of the draws.
    """

    def __init__(
        self,
        columns: np.ndarray,
        combine: Callable[[np.ndarray], Values],
        draws: Mapping[str, Draws] | None = None,
        limits: Mapping[str, Limits] | None = None,
    ):
        self.columns, self.combine = np.asarray(columns), combine
        self.draws, self.limits = dict(draws or {}), dict(limits or {})
        super().__init__(lambda weights: combine(self.resample(weights)), len(self.columns))

    @property
    def means(self) -> np.ndarray:
        """Means of the columns: (K,) float64; nan where there are no samples."""
        if self.n == 0:
            return np.full(self.columns.shape[1], np.nan)
        return self.columns.mean(0, dtype=np.float64)

    def resample(self, weights: np.ndarray) -> np.ndarray:
        """Weighted means of the columns: (R, N) -> (R, K)."""
        return (weights @ self.columns) / weights.sum(1, keepdims=True)

    def _once(self) -> dict[str, float]:
        if self._values is None:
            self._values = {name: float(value) for name, value in self.combine(self.means).items()}
        return self._values
