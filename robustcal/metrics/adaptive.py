"""Adaptive calibration error: equal-mass bins instead of equal-width ones."""

from __future__ import annotations

from ..registry import register
from ..types import Records
from .bins import bin_edges, bin_index
from .calibration import READINGS, binned, reading_of
from .weighted import Means


@register.metric(
    direction={f"{prefix}adaptive_{name}": "lower" for _, prefix in READINGS.values() for name in ("ece", "mce")},
    unit="fraction", columns=("confidence", "dirichlet_confidence", "correct"),
)  # fmt: skip
def adaptive(records: Records, *, bins: int = 15, reading: str = "softmax") -> Means | dict[str, float]:
    """adaptive_ece and adaptive_mce: the calibration errors over bins of equally many samples.

    Nguyen and O'Connor (2015). Edges lie at sample quantiles, (low, high]; samples of equal confidence stay together,
    so many ties make fewer bins. Resamples keep the edges of the whole sample.
    """
    if (found := reading_of(records, reading)) is None:
        return {}
    confidence, correct, prefix = found
    edges = bin_edges(confidence, bins, "mass")
    return binned(
        confidence, correct, bin_index(confidence, edges), len(edges) - 1,
        {"ece": f"{prefix}adaptive_ece", "mce": f"{prefix}adaptive_mce"},
    )  # fmt: skip
