"""Spearman's rank correlation under many sample weights at once."""

from __future__ import annotations

import numpy as np

from .sorting import Sorted


class RankCorrelation:
    """Correlation of ranks between a score and levels, where every sample has been seen at one or several levels.

    Tied scores, and tied levels, share the mean of their ranks (Spearman 1904; Kendall 1945).

    Args:
        scores: (S, N) of N samples in S rows.
        levels: (S, N), or (S, 1) for a level that a whole row shares; few distinct values.
    """

    def __init__(self, scores: np.ndarray, levels: np.ndarray):
        scores, levels = np.asarray(scores, np.float64), np.broadcast_to(levels, np.shape(scores))
        self.sorted = Sorted(scores.ravel())
        self.group = np.zeros(scores.size, dtype=np.int64)  # of the score, in sorted order
        self.group[self.sorted.starts[1:]] = 1
        self.group = self.group.cumsum()
        values, index = np.unique(levels.ravel(), return_inverse=True)
        index = index.reshape(-1)[self.sorted.order]
        self.at_level = (index[:, None] == np.arange(len(values))).astype(np.float64)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Correlation (R,) in [-1, 1] under sample weights (R, N); nan where scores or levels do not vary."""
        each = self.sorted.gather(np.asarray(weights, np.float64))
        groups, levels = self.sorted.sums(each), each @ self.at_level
        total = each.sum(1, keepdims=True)
        of_score, of_level = (sums.cumsum(1) - sums / 2 - total / 2 for sums in (groups, levels))  # ranks less their mean
        shared = (((each * of_score[:, self.group]) @ self.at_level) * of_level).sum(1)
        spread = (groups * of_score**2).sum(1) * (levels * of_level**2).sum(1)
        return np.asarray(shared / np.sqrt(np.where(spread > 0, spread, np.nan)))
