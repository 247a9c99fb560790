"""What small samples do to a calibration error, and how to undo it.

A calibration error is a norm ``F`` of noisy per-bin gaps, so it is positive even for a perfectly calibrated model and
its bootstrap is biased twice. Here the bootstrap supplies the noise ``e_r`` only: what resample r takes off the gaps, for where
resamples are skewed upwards, as rare hits are, the truth can lie far above the observation, not below. For candidate truths
``F(t g)``, t >= 0, the estimate would have been ``F(t g + e_r)``; solving ``F(t g + e_r) = F(observed gaps)`` for t in every
resample gives draws ``F(t_r g)`` whose percentiles are those of an inverted test: valid at zero, where percentiles of
the plain bootstrap never are, and centred on a median-unbiased estimate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

#: Gaps (R, B), row r with the bin shares of resample r -> (R,). Convex, positively homogeneous, at most 1 for gaps
#: that are true.
Norm = Callable[[np.ndarray], np.ndarray]

#: Most steps towards a root or its bracket, and those of draws, whose own noise is larger than what is left.
STEPS, DRAW_STEPS = 26, 8
#: How far the patterns of `wary_draws` go from the observed gaps to the extremes, and what makes a gap certain.
WARINESS, CERTAIN = 0.5, 2.0
#: Quantile of pure noise below which an observed error counts as luck.
LUCKY = 0.05


def truth_draws(gaps: np.ndarray, resampled: np.ndarray, observed: float, norm: Norm) -> np.ndarray:
    """Draws (R,) for the true norm of the gaps: their percentiles are limits of a test-based interval.

    Args:
        gaps: (B,) observed mean over all samples of (confidence - correct) within each bin.
        resampled: (R, B) the same in each bootstrap resample.
        observed: the norm of `gaps`.
    """
    if not observed > 0:
        return norm(resampled)
    return np.asarray(np.minimum(observed * _scale(gaps, gaps - resampled, observed, norm), 1.0))


def wary_draws(
    gaps: np.ndarray, resampled: np.ndarray, norm: Norm, whole: Callable[[np.ndarray], float], side: int = 0
) -> np.ndarray:
    """`truth_draws`, widened because nobody knows which of the small gaps are real.

    How much of the observed error is noise depends on how the true gaps are spread over the bins. Draws below the
    median also consider a pattern nearer to "only the certain gaps are real", draws above it one nearer to "every bin
    is off by the same number of standard errors"; the more extreme draw counts. An error smaller than `LUCKY` of those
    that noise makes alone is read as that quantile by the draws above the median: it is luck, and no proof of zero.

    Args:
        whole: gaps (B,) -> their norm with the bin shares of the whole sample.
        side: 0, or the sign of the gaps that the norm counts. Only those are scaled; the others stay as observed, for
            draws below the median those of them that are certain: what a bin that is far on the other side cannot add
            is no noise of this norm.
    """
    observed = whole(gaps)
    if not observed > 0 or len(resampled) < 2:
        return truth_draws(gaps, resampled, observed, norm)
    spread, noise = resampled.std(0), gaps - resampled
    certain = np.where(np.abs(gaps) > CERTAIN * spread, gaps, 0.0)
    counted = gaps * side >= 0
    moving, fixed, surely_fixed = (np.where(keep, x, 0.0) for keep, x in ((counted, gaps), (~counted, gaps), (~counted, certain)))
    lifted = max(observed, float(np.quantile(norm(noise + fixed), LUCKY)))

    def draws(pattern: np.ndarray, fixed: np.ndarray, reached: float) -> np.ndarray:
        scale = _scale(pattern * (observed / whole(pattern)), noise + fixed, reached, norm)
        return np.asarray(np.minimum(observed * scale, 1.0))

    def towards(extreme: np.ndarray) -> np.ndarray:
        share = extreme / max(np.abs(extreme).sum(), 1e-300)
        return np.asarray(moving / np.abs(moving).sum() * (1 - WARINESS) + share * WARINESS)

    middle = draws(moving, fixed, observed)
    low = np.minimum(middle, draws(towards(np.where(counted, certain, 0.0)), surely_fixed, observed))
    high = np.maximum(middle, draws(towards(np.sign(moving) * spread), fixed, lifted))
    above = np.zeros(len(middle), dtype=bool)
    above[np.lexsort((high, middle))[(len(middle) + 1) // 2 :]] = True  # as many as below, however many draws are 0
    return np.asarray(np.where(above, high, low))


def _scale(pattern: np.ndarray, noise: np.ndarray, observed: float, norm: Norm) -> np.ndarray:
    """The t (R,) at which norm(t pattern + noise) reaches `observed`; 0 where the noise alone does."""
    low, below = np.zeros(len(noise)), norm(noise) - observed
    high, above = np.ones(len(noise)), np.full(len(noise), np.inf)
    zero = below >= 0
    for _ in range(STEPS):
        above = norm(high[:, None] * pattern + noise) - observed
        short = (above < 0) & ~zero
        if not short.any():
            break
        low, below, high = np.where(short, high, low), np.where(short, above, below), np.where(short, 2 * high, high)
    middle, side = high, np.zeros(len(noise))
    for _ in range(DRAW_STEPS):  # the Illinois rule: regula falsi that halves the value of an end which stays
        middle = high - above * (high - low) / np.where(above > below, above - below, np.inf)
        value = norm(middle[:, None] * pattern + noise) - observed
        left = value < 0
        above, below = np.where(left & (side < 0), above / 2, above), np.where(~left & (side > 0), below / 2, below)
        low, below = np.where(left, middle, low), np.where(left, value, below)
        high, above = np.where(left, high, middle), np.where(left, above, value)
        side = np.where(left, -1.0, 1.0)
    return np.asarray(np.where(zero, 0.0, middle))


def folded_mean(centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """E|X| of normal X with this mean and standard deviation (elementwise)."""
    safe = np.where(spread > 0, spread, 1.0)
    ratio = centre / safe
    value = safe * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + centre * erf(ratio / np.sqrt(2))
    return np.asarray(np.where(spread > 0, value, np.abs(centre)))


def folded_slope(centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Derivative of `folded_mean` by the mean (elementwise)."""
    return np.asarray(np.where(spread > 0, erf(centre / np.where(spread > 0, spread, 1.0) / np.sqrt(2)), np.sign(centre)))


def debiased_l1(gaps: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """Sum of absolute gaps (..., B) with the part that noise of these standard errors (..., B) explains taken out.

    Solves E sum|t g + noise| = sum|g| for the shrinkage t in [0, 1]; 0 where noise alone explains everything. The
    bias is the one Kumar et al. (2019, verified uncertainty calibration) simulate; solving instead of subtracting
    keeps the estimate at or above 0 and the bias small near 0.
    """
    observed = np.abs(gaps).sum(-1)
    scale = np.where(folded_mean(np.zeros_like(gaps), spreads).sum(-1) < observed, 1.0, 0.0)
    for _ in range(STEPS):  # Newton's steps from the right of a convex function never pass its root
        moved = scale[..., None] * gaps
        excess = np.where(scale > 0, folded_mean(moved, spreads).sum(-1) - observed, 0.0)
        if not (excess > 1e-9 * observed).any():
            break
        slope = (gaps * folded_slope(moved, spreads)).sum(-1)
        scale = np.maximum(scale - excess / np.where(slope > 0, slope, np.inf), 0.0)
    return np.asarray(scale * observed)
