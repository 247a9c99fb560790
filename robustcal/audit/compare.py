"""Two records of one sample: the same, the same up to floating point, or not the same.

Sums come in another order in another batch, on another thread count or another machine. One forward pass then differs in the last
digits. An attack that follows signs of gradients differs by more, for a sign near zero may flip, and every sample by as much as
it is sensitive. So a record that is not within a forward pass's rounding is held against what rounding does to this very
sample: the attack is repeated from images moved by rounding errors, and the record has to lie among the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.logits import matrix

#: What one fp32 forward pass leaves open. Logits: a cosine of 1e-5, for a sum of 1000 products, times a scale of 100.
LOGIT, PIXEL, LENGTH = 1e-3, 2e-6, 2e-5
#: A record may be as far from the nearest outcome as this many times the loneliest outcome is from its nearest.
FAR = 2.0
#: Columns that follow from logits and label.
FOLLOWS = ("confidence", "label_probability", "entropy", "brier")
COUNTS = ("forwards", "backwards", "zero_gradients")


@dataclass(frozen=True)
class Outcomes:
    """Records as points: (N, D) values in units of what a forward pass leaves open, counts (N, K), and flags."""

    points: np.ndarray
    counts: np.ndarray
    flags: tuple[str, ...]

    @staticmethod
    def of(columns: Mapping[str, Any], logits: bool = True) -> Outcomes:
        """From the columns of records. Logits that are not stored count as the smallest that is.

        Args:
            logits: whether there are any; a submission may lack them, and then what follows from them is compared.
        """
        if not logits:
            return _without_logits(columns)
        top, classes = matrix(columns["top_logits"]).astype(np.float64), matrix(columns["top_classes"])
        width = max(int(classes.max()) + 1, top.shape[1])
        dense = np.repeat(top[:, -1:], width, axis=1)
        np.put_along_axis(dense, classes.astype(np.int64), top, axis=1)
        pixel, length = (np.asarray(columns[name], np.float64)[:, None] for name in ("linf", "l2"))
        points = np.concatenate([dense / LOGIT, pixel / PIXEL, length / LENGTH], axis=1)
        counts = np.stack([np.asarray(columns[name], np.float64) for name in COUNTS], axis=1)
        return Outcomes(points, counts, tuple(map(str, columns["flags"])))

    def row(self, at: int) -> Outcomes:
        """One of them."""
        return Outcomes(self.points[at : at + 1], self.counts[at : at + 1], self.flags[at : at + 1])

    def __len__(self) -> int:
        return len(self.flags)

    def joined(self, other: Outcomes) -> Outcomes:
        """These and others."""
        width = max(self.points.shape[1], other.points.shape[1])
        if self.points.shape[1] != width or other.points.shape[1] != width:  # other classes among those stored: far apart
            return self
        return Outcomes(
            np.concatenate([self.points, other.points]), np.concatenate([self.counts, other.counts]), self.flags + other.flags
        )


def _without_logits(columns: Mapping[str, Any]) -> Outcomes:
    """A logit's rounding moves a probability, an entropy or a score by no more than about as much."""
    values = np.stack([np.asarray(columns[name], np.float64) for name in FOLLOWS], axis=1)
    pixel, length = (np.asarray(columns[name], np.float64)[:, None] for name in ("linf", "l2"))
    counts = np.stack([np.asarray(columns[name], np.float64) for name in (*COUNTS, "prediction")], axis=1)
    points = np.concatenate([values / LOGIT, pixel / PIXEL, length / LENGTH], axis=1)
    return Outcomes(points, counts, tuple(map(str, columns["flags"])))


def same(one: Outcomes, other: Outcomes) -> bool:
    """Whether two single records differ by no more than a forward pass leaves open, which is nothing in the same batch."""
    alike = one.points.shape == other.points.shape and one.flags == other.flags and np.array_equal(one.counts, other.counts)
    return alike and bool(np.abs(one.points - other.points).max() <= 1)


def among(record: Outcomes, outcomes: Outcomes) -> bool:
    """Whether a record lies among the outcomes of repetitions that differ by rounding alone, at least three of them."""
    if record.points.shape[1] != outcomes.points.shape[1] or record.flags[0] not in outcomes.flags:
        return False
    low, high = outcomes.counts.min(0), outcomes.counts.max(0)
    room = high - low
    if not ((record.counts[0] >= low - room) & (record.counts[0] <= high + room)).all():
        return False
    nearest = _distances(record.points, outcomes.points).min()
    between = _distances(outcomes.points, outcomes.points)
    np.fill_diagonal(between, np.inf)
    return bool(nearest <= max(1.0, FAR * between.min(1).max()))


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest difference of any coordinate: (N, D), (M, D) -> (N, M)."""
    return np.asarray(np.abs(one[:, None] - other[None]).max(2))


def described(columns: Mapping[str, Any], at: int, classnames: Sequence[str]) -> str:
    """A record in words, as lists of disagreements show it."""
    label = str(classnames[int(columns["prediction"][at])])
    flags = f", {columns['flags'][at]}" if columns["flags"][at] else ""
    confidence, linf, l2 = (float(columns[name][at]) for name in ("confidence", "linf", "l2"))
    return f"{label} {confidence:.4f}, linf {linf:.4g}, l2 {l2:.4g}{flags}"
