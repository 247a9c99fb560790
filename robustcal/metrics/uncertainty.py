"""Predictive entropy, aleatoric and epistemic uncertainty, raw and normalised."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .logits import class_count
from .weighted import Means


@register.metric(
    unit={
        "entropy": "nats", "au": "nats", "eu": "", "log10_eu": "log10", "entropy_normalised": "fraction",
        "au_normalised": "fraction",
    },
    least={"entropy": 0, "au": 0, "eu": 0, "entropy_normalised": 0, "au_normalised": 0},
    columns=("entropy", "au", "log_eu", "log_alpha0"),
)  # fmt: skip
def uncertainty(records: Records) -> Means:
    """Means over samples. entropy: of the softmax; au: expected entropy under the Dirichlet; eu: C / (alpha_0 + C).

    These are the formulas of the paper, with alpha = exp((cosine + 1) / 0.07); its released code logs others, see
    `released_uncertainty`. The normalised forms are divided by ln C. CLIP's evidence makes eu about 1e-8, so log10_eu,
    the mean of its logarithm, is what moves.
    """
    log_eu = np.asarray(records["log_eu"], dtype=np.float64)
    columns = np.stack([np.asarray(records["entropy"], np.float64), np.asarray(records["au"], np.float64)], axis=1)
    columns = np.concatenate([columns, np.exp(log_eu)[:, None], log_eu[:, None] / np.log(10)], axis=1)
    classes = class_count(records)
    scale = np.log(max(classes, 2)) if classes else np.nan

    def combine(means: np.ndarray) -> dict[str, np.ndarray]:
        entropy, au, eu, log10_eu = np.moveaxis(means, -1, 0)
        return {
            "entropy": entropy, "au": au, "eu": eu, "log10_eu": log10_eu,
            "entropy_normalised": entropy / scale, "au_normalised": au / scale,
        }  # fmt: skip

    return Means(columns, combine)
