"""Accuracy, and the harmonic mean H of clean and robust accuracy."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .weighted import Means


@register.metric(direction="higher", unit="fraction", columns=("correct",))
def accuracy(records: Records) -> Means:
    """Share of correct predictions; in a multi-label task, of predictions that are among the positive classes."""
    correct = np.asarray(records["correct"], dtype=np.float64)
    return Means(correct[:, None], lambda means: {"accuracy": means[..., 0]})


def harmonic_mean(clean: np.ndarray | float, attacked: np.ndarray | float) -> np.ndarray:
    """H = 2 a b / (a + b); 0 where both are 0, nan where either is missing. Broadcasts.

    The H of the literature's tables takes the two averages over datasets: ``harmonic_mean(mean(a), mean(b))``.
    """
    a, b = np.asarray(clean, dtype=np.float64), np.asarray(attacked, dtype=np.float64)
    total = a + b
    return np.asarray(np.where(total == 0, 0.0, 2 * a * b / np.where(total == 0, 1.0, total)))


def mean_harmonic(clean: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """Mean over datasets (last axis) of the per-dataset H: never larger than the H of the averages."""
    return np.asarray(harmonic_mean(clean, attacked).mean(-1))
