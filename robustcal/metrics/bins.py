"""Reliability bins: one object behind both the calibration error and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

NORMS = ("l1", "l2", "max")


@dataclass(frozen=True)
class ReliabilityBins:
    """Samples grouped by confidence. Bins are (low, high]; confidence 0 belongs to the first.

    Attributes:
        edges: (B + 1,) ascending, from 0 to 1.
        counts: (B,) number of samples.
        confidence: (B,) mean confidence; nan in an empty bin.
        accuracy: (B,) share of correct samples; nan in an empty bin.
        lower, upper: (B,) exact binomial (Clopper-Pearson) limits of the accuracy; 0 and 1 in an empty bin.
        level: confidence level of those limits.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    level: float = 0.95

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def share(self) -> np.ndarray:
        """(B,) share of all samples; nan if there are none."""
        return self.counts / self.total if self.total else np.full(len(self.counts), np.nan)

    @property
    def gap(self) -> np.ndarray:
        """(B,) confidence minus accuracy: positive is over-confident, nan in an empty bin."""
        return np.asarray(self.confidence - self.accuracy)

    def error(self, norm: str = "l1") -> float:
        """Calibration error of these bins, in [0, 1].

        "l1": mean absolute gap (ECE, Naeini et al. 2015); "l2": root mean square gap; "max": largest gap (MCE).
        nan if there are no samples.
        """
        return gap_norm(self.gap, self.share, norm)


def gap_norm(gap: np.ndarray, share: np.ndarray, norm: str) -> float:
    """Norm of per-bin gaps (B,) weighted by their share of the samples (B,); empty bins do not count."""
    used = share > 0
    gap, share = np.abs(gap[used]), share[used]
    if norm not in NORMS:
        raise ValueError(f"norm '{norm}' is none of {', '.join(NORMS)}")
    if not used.any():
        return float("nan")
    if norm == "max":
        return float(gap.max())
    return float(share @ gap) if norm == "l1" else float(np.sqrt(share @ gap**2))


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, scheme: str = "width", level: float = 0.95
) -> ReliabilityBins:
    """Group samples by confidence.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool or 0/1.
        bins: number of bins.
        scheme: "width" for equal widths (the usual ECE), "mass" for edges at quantiles of the confidence.
        level: of the binomial limits.

    Raises:
        ValueError: a confidence that is not in [0, 1] (a logit, or nan), unequal lengths, an unknown scheme.
    """
    confidence, correct = checked(confidence, correct)
    edges = bin_edges(confidence, bins, scheme)
    index = bin_index(confidence, edges)
    counts = np.bincount(index, minlength=len(edges) - 1)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence, minlength=len(counts)) / counts
        accuracy = np.bincount(index, correct, minlength=len(counts)) / counts
    hits = np.bincount(index, correct, minlength=len(counts))
    return ReliabilityBins(edges, counts, mean, accuracy, *binomial_limits(hits, counts, level), level)


def bin_edges(confidence: np.ndarray, bins: int = 15, scheme: str = "width") -> np.ndarray:
    """Edges (B + 1,) of the bins; equal-mass edges fall on sample values and are fewer where many samples tie."""
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, not {bins}")
    if scheme == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    if scheme != "mass":
        raise ValueError(f"scheme '{scheme}' is neither 'width' nor 'mass'")
    if not len(confidence):
        return np.array([0.0, 1.0])
    inner = np.quantile(confidence, np.arange(1, bins) / bins, method="inverted_cdf") if bins > 1 else []
    inner = np.asarray(inner)
    return np.unique(np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]]))


def bin_index(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index (N,) of the (low, high] bin each confidence falls in; 0 goes to the first."""
    return np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)


def checked(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N,); confidences may leave [0, 1] by rounding only."""
    confidence = np.asarray(confidence, dtype=np.float64)
    correct = np.asarray(correct).astype(np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must both be (N,)")
    bad = ~((confidence >= -1e-5) & (confidence <= 1 + 1e-5))
    if bad.any():
        worst = confidence[bad][0]
        raise ValueError(f"{bad.sum()} of {len(bad)} confidences are not in [0, 1], such as {worst:g}")
    return np.clip(confidence, 0.0, 1.0), correct


def binomial_limits(hits: np.ndarray, counts: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Exact (Clopper and Pearson, 1934) limits of a proportion; 0 and 1 where counts are 0."""
    hits, counts = np.asarray(hits, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    tail = (1 - level) / 2
    some, all_ = hits > 0, hits >= counts
    lower = np.where(some, betaincinv(np.where(some, hits, 1), counts - hits + 1, tail), 0.0)
    upper = np.where(all_, 1.0, betaincinv(hits + 1, np.where(all_, 1, counts - hits), 1 - tail))
    return lower, upper
