"""Smooth calibration error: kernel smoothing instead of bins, at a bandwidth that the data choose."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct

from ..registry import register
from ..types import Records
from .bins import bin_index
from .calibration import READINGS, reading_of
from .debias import truth_draws
from .sorting import Sorted
from .weighted import Weighted

#: Cells of the grid on [0, 1] that residuals are collected in, and their width.
GRID = 1000
#: Halvings when the bandwidth is sought: a precision of 1e-6.
HALVINGS = 20


@register.metric(
    direction={f"{prefix}smooth_ece": "lower" for _, prefix in READINGS.values()}, unit="fraction",
    columns=("confidence", "dirichlet_confidence", "correct"),
)  # fmt: skip
def smooth(records: Records, *, reading: str = "softmax") -> Weighted | dict[str, float]:
    """smooth_ece: integral over [0, 1] of the absolute kernel-smoothed residual (Blasiok and Nakkiran, 2024).

    The kernel is a Gaussian reflected at 0 and 1; its bandwidth is the one that equals the error itself, so there is
    nothing to choose. Residuals are first collected on a grid of 1000 cells.
    """
    if (found := reading_of(records, reading)) is None:
        return {}
    confidence, correct, prefix = found
    cell = bin_index(confidence, np.linspace(0.0, 1.0, GRID + 1))
    groups, gap, n = Sorted(cell), confidence - correct, len(cell)
    used = cell[groups.order][groups.starts] if n else cell

    def residuals(weights: np.ndarray) -> np.ndarray:
        on_grid = np.zeros((len(weights), GRID))
        on_grid[:, used] = np.add.reduceat(weights[:, groups.order] * gap[groups.order], groups.starts, axis=1)
        return np.asarray(on_grid / weights.sum(1, keepdims=True))

    def evaluate(weights: np.ndarray) -> dict[str, np.ndarray]:
        if n == 0:
            return {f"{prefix}smooth_ece": np.full(len(weights), np.nan)}
        on_grid = residuals(weights)
        return {f"{prefix}smooth_ece": smoothed_norm(on_grid, bandwidth(on_grid))}

    whole = residuals(np.ones((1, n))) if n else np.zeros((1, GRID))
    width = bandwidth(whole)

    def draws(weights: np.ndarray) -> dict[str, np.ndarray]:
        observed = float(smoothed_norm(whole, width)[0])
        found = truth_draws(whole[0], residuals(weights), observed, lambda moved: smoothed_norm(moved, width))
        return {f"{prefix}smooth_ece": found}

    return Weighted(evaluate, n, draws, (f"{prefix}smooth_ece",))


def smoothed_norm(residuals: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Integral of the absolute residual (R, GRID), smoothed by a reflected Gaussian of this standard deviation.

    `width` is (R,) or (1,). The cosine transform diagonalises smoothing with reflection at both ends.
    """
    frequency = np.pi * np.arange(residuals.shape[1])
    damping = np.exp(-((np.asarray(width)[:, None] * frequency) ** 2) / 2)
    return np.asarray(np.abs(idct(dct(residuals, axis=1) * damping, axis=1)).sum(1))


def bandwidth(residuals: np.ndarray) -> np.ndarray:
    """The width (R,) at which `smoothed_norm` equals the width itself; it falls while the width grows."""
    low, high = np.zeros(len(residuals)), np.ones(len(residuals))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        wider = smoothed_norm(residuals, middle) > middle
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    return (low + high) / 2
