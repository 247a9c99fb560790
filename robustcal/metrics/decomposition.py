"""Brier score of the confidence, decomposed into reliability, resolution and uncertainty."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .bins import bin_edges, bin_index
from .calibration import READINGS, reading_of
from .weighted import Means

PARTS = {
    "brier_top": "lower", "brier_reliability": "lower", "brier_resolution": "higher", "brier_uncertainty": "none",
    "brier_within": "none",
}  # fmt: skip


@register.metric(
    direction={prefix + name: way for _, prefix in READINGS.values() for name, way in PARTS.items()},
    columns=("confidence", "dirichlet_confidence", "correct"),
)
def decomposition(records: Records, *, bins: int = 15, reading: str = "softmax") -> Means | dict[str, float]:
    """brier_top, the mean of (confidence - correct)^2 over the predicted class only, and what it is made of.

    brier_top = brier_reliability - brier_resolution + brier_uncertainty + brier_within: Murphy (1973) over
    equal-width bins; `within` is the variance inside the bins that makes it exact (Stephenson, Coelho and Jolliffe,
    2008).
    """
    if (found := reading_of(records, reading)) is None:
        return {}
    confidence, correct, prefix = found
    index = bin_index(confidence, bin_edges(confidence, bins))
    rows = np.arange(len(index))
    columns = np.zeros((len(index), 3 * bins + 2), dtype=np.float32)
    for part, value in enumerate((np.ones(len(index)), confidence, correct)):
        columns[rows, part * bins + index] = value
    columns[:, -2], columns[:, -1] = (confidence - correct) ** 2, correct

    def combine(means: np.ndarray) -> dict[str, np.ndarray]:
        share, mean, hits = (means[..., part * bins : (part + 1) * bins] for part in range(3))
        weight = np.where(share > 5e-10, 1 / np.where(share > 5e-10, share, 1), 0)
        total, accuracy = means[..., -2], means[..., -1]
        reliability = ((mean - hits) ** 2 * weight).sum(-1)
        resolution = ((hits - share * accuracy[..., None]) ** 2 * weight).sum(-1)
        uncertainty = accuracy * (1 - accuracy)
        parts = (total, reliability, resolution, uncertainty, total - reliability + resolution - uncertainty)
        return {prefix + name: value for name, value in zip(PARTS, parts)}

    return Means(columns, combine)
