"""Errors made with confidence: how often a model is wrong and sure of it."""

import numpy as np

from robustcal import register
from robustcal.metrics.weighted import Means


@register.metric(
    direction={"sure_errors": "lower", "error_confidence": "none"}, unit="fraction", columns=("correct", "confidence")
)
def sure_errors(records, *, above: float = 0.9):
    """sure_errors: share of samples that are wrong at a confidence above `above`; error_confidence: mean confidence of errors.

    Args:
        records: columns of numpy arrays (N,), see `robustcal.types.RECORD_COLUMNS`.
    """
    confidence = np.asarray(records["confidence"], dtype=float)
    wrong = ~np.asarray(records["correct"], dtype=bool)
    columns = np.stack([wrong & (confidence > above), wrong, wrong * confidence], axis=1).astype(float)

    def combine(means):
        """From the means (..., 3) of the columns to values: all that the bootstrap has to repeat."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"sure_errors": means[..., 0], "error_confidence": means[..., 2] / means[..., 1]}

    return Means(columns, combine)
