"""Kolmogorov-Smirnov calibration error: the largest cumulative gap, without bins."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .calibration import READINGS, reading_of
from .debias import truth_draws
from .sorting import Sorted, segments
from .weighted import Weighted

#: Thresholds at which the cumulative gap is followed through the resamples.
SEGMENTS = 200


@register.metric(
    direction={f"{prefix}ks": "lower" for _, prefix in READINGS.values()}, unit="fraction",
    columns=("confidence", "dirichlet_confidence", "correct"),
)  # fmt: skip
def kolmogorov(records: Records, *, reading: str = "softmax") -> Weighted | dict[str, float]:
    """ks: largest absolute cumulative sum of (correct - confidence) over samples sorted by confidence, over N.

    Gupta et al. (2021), eq. 8. Samples of equal confidence are added together, so the order of ties does not matter.
    """
    if (found := reading_of(records, reading)) is None:
        return {}
    confidence, correct, prefix = found
    groups, gap = Sorted(confidence), correct - confidence

    def evaluate(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(1, dtype=np.float64)
        steps = groups.group_sums(weights, gap)
        return {f"{prefix}ks": _largest(steps) / np.where(total > 0, total, np.nan)}

    starts = segments(groups, SEGMENTS)
    observed = np.add.reduceat(gap[groups.order], starts) / len(gap) if len(gap) else gap

    def draws(weights: np.ndarray) -> dict[str, np.ndarray]:
        ordered = weights[:, groups.order].astype(np.float64) * gap[groups.order]
        resampled = np.add.reduceat(ordered, starts, axis=1) / weights.sum(1, keepdims=True)
        return {f"{prefix}ks": truth_draws(observed, resampled, float(_largest(observed)), _largest)}

    return Weighted(evaluate, len(gap), draws, (f"{prefix}ks",))


def _largest(steps: np.ndarray) -> np.ndarray:
    """Largest absolute cumulative sum along the last axis (0 if it is empty)."""
    return np.asarray(np.abs(np.cumsum(steps, axis=-1)).max(-1, initial=0.0))
