"""Weighted sums along a sorted column: what rank-based metrics are made of."""

from __future__ import annotations

import numpy as np


class Sorted:
    """Samples sorted by a score (N,), ascending, with equal scores in one group.

    Attributes:
        order: (N,) sample indices.
        starts: (G,) position in `order` at which each group of equal scores begins.
    """

    def __init__(self, score: np.ndarray):
        self.order = np.argsort(score, kind="stable")
        ranked = np.asarray(score)[self.order]
        new = np.ones(len(ranked), dtype=bool)
        new[1:] = ranked[1:] != ranked[:-1]
        self.starts = np.flatnonzero(new)

    def coarse(self, most: int = 1000) -> Sorted:
        """The same order in at most about `most` groups of similar size: neighbours are merged as if they tied."""
        merged = Sorted.__new__(Sorted)
        merged.order, merged.starts = self.order, segments(self, most)
        return merged

    def gather(self, weights: np.ndarray) -> np.ndarray:
        """Weights (R, N) in sorted order; with 2 N scores over the same N samples, each sample is taken twice."""
        return np.take(weights, self.order % weights.shape[1], axis=1) if weights.shape[1] else weights

    def sums(self, ordered: np.ndarray) -> np.ndarray:
        """Sums of numbers in sorted order (R, N) within each group: (R, G) float64."""
        grouped = ordered if len(self.starts) == len(self.order) else np.add.reduceat(ordered, self.starts, axis=1)
        return grouped.astype(np.float64)

    def group_sums(self, weights: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Sums of weights (R, N), times `values` (N,) if given, within each group: (R, G) float64."""
        ordered = self.gather(weights)
        return self.sums(ordered if values is None else ordered * np.asarray(values)[self.order])


def segments(groups: Sorted, most: int) -> np.ndarray:
    """Starts of at most `most` runs of whole groups with about equally many samples: positions in `order`."""
    if len(groups.starts) <= most:
        return groups.starts
    wanted = np.linspace(0, len(groups.order), most, endpoint=False)
    return groups.starts[np.unique(np.searchsorted(groups.starts, wanted, side="right") - 1)]
