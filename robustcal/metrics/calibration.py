"""Calibration error over equal-width bins: ECE, MCE, its debiased form, and over- and under-confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .bins import ReliabilityBins, bin_edges, bin_index, checked, reliability_bins
from .debias import debiased_l1, wary_draws
from .weighted import Means

Norm = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Norms of the gaps (..., B), each already multiplied by its bin's share of the samples (..., B).
NORMS: dict[str, Norm] = {
    "ece": lambda gap, share: np.abs(gap).sum(-1),
    "ece_l2": lambda gap, share: np.sqrt((gap**2 * _inverse(share)).sum(-1)),
    "mce": lambda gap, share: (np.abs(gap) * _inverse(share)).max(-1),
    "overconfidence": lambda gap, share: np.maximum(gap, 0).sum(-1),
    "underconfidence": lambda gap, share: np.maximum(-gap, 0).sum(-1),
}
#: The sign of the gaps that a norm counts, where it counts one only.
SIDES = {"overconfidence": 1, "underconfidence": -1}
READINGS = {"softmax": ("confidence", ""), "dirichlet": ("dirichlet_confidence", "dirichlet_")}


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, norm: str = "l1", scheme: str = "width"
) -> float:
    """Calibration error of confidences (N,) in [0, 1] against correctness (N,): a number in [0, 1], nan if N = 0.

    Args:
        bins: number of bins (low, high].
        norm: "l1" (ECE; Naeini et al. 2015, Guo et al. 2017), "l2" (root mean square) or "max" (MCE).
        scheme: "width" or "mass" (adaptive ECE; Nguyen and O'Connor 2015).
    """
    return reliability_bins(confidence, correct, bins, scheme).error(norm)


DIRECTION = {
    "ece": "lower", "ece_debiased": "lower", "ece_l2": "lower", "mce": "lower", "confidence": "none", "gap": "zero",
    "overconfidence": "lower", "underconfidence": "lower",
}  # fmt: skip


@register.metric(
    direction={prefix + name: way for _, prefix in READINGS.values() for name, way in DIRECTION.items()},
    unit="fraction", least={prefix + "confidence": 0 for _, prefix in READINGS.values()},
    columns=("confidence", "dirichlet_confidence", "correct"),
)  # fmt: skip
def calibration(records: Records, *, bins: int = 15, reading: str = "softmax") -> Means | dict[str, float]:
    """How far confidence is from accuracy.

    `reading`: "softmax" at the model's own logit scale, or "dirichlet", the Dirichlet mean softmax(cosine / 0.07),
    whose names start with ``dirichlet_``. Returned names:

    - ece, ece_l2, mce: over `bins` equal-width bins (low, high];
    - ece_debiased: ece without the part that sampling noise explains;
    - confidence: mean confidence; gap: mean confidence minus accuracy;
    - overconfidence, underconfidence: the two parts of ece, from bins above and below their accuracy;
      their sum is ece, their difference is gap.
    """
    if (found := reading_of(records, reading)) is None:
        return {}
    confidence, correct, prefix = found
    index = bin_index(confidence, bin_edges(confidence, bins))
    return binned(confidence, correct, index, bins, {name: prefix + name for name in DIRECTION})


def binned(
    confidence: np.ndarray, correct: np.ndarray, index: np.ndarray, bins: int, names: Mapping[str, str]
) -> Means:
    """Calibration errors over given bins, as means of per-sample columns.

    Args:
        index: (N,) bin of each sample, below `bins`.
        names: which values (keys of `DIRECTION`) to return, and under what name.
    """
    columns = bin_columns(index, bins, confidence - correct, confidence)

    def combine(means: np.ndarray) -> dict[str, np.ndarray]:
        gap, square, share = (means[..., part * bins : (part + 1) * bins] for part in range(3))
        spread = np.sqrt(np.maximum(square - gap**2, 0) / max(len(confidence), 1))
        values = {name: norm(gap, share) for name, norm in NORMS.items()}
        values |= {"ece_debiased": debiased_l1(gap, spread), "confidence": means[..., -1], "gap": gap.sum(-1)}
        return {name: values[key] for key, name in names.items()}

    def rule_of(key: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        norm = NORMS[key]

        def draws(means: np.ndarray, resampled: np.ndarray) -> np.ndarray:
            share = resampled[:, 2 * bins : 3 * bins]
            return wary_draws(
                means[:bins], resampled[:, :bins], lambda gap: norm(gap, share),
                lambda gap: float(norm(gap, means[2 * bins : 3 * bins])),
                SIDES.get(key, 0),
            )  # fmt: skip

        return draws

    rules = {name: rule_of(key) for key, name in names.items() if key in NORMS}
    alike = {names["ece_debiased"]: names["ece"]} if "ece_debiased" in names else {}  # two estimates of one true error
    return Means(columns, combine, rules, (names["ece"],) if "ece" in names else (), alike)


def _inverse(share: np.ndarray) -> np.ndarray:
    """1 / share, and 0 in an empty bin (a share below that of half a sample in 10^9 is rounding)."""
    return np.where(share > 5e-10, 1 / np.where(share > 5e-10, share, 1), 0.0)


def bin_columns(index: np.ndarray, bins: int, gap: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Per-sample columns (N, 3 bins + 1) float32: gap, squared gap and 1 in the sample's own bin; the confidence."""
    rows = np.arange(len(index))
    columns = np.zeros((len(index), 3 * bins + 1), dtype=np.float32)
    columns[rows, index] = gap
    columns[rows, bins + index] = gap**2
    columns[rows, 2 * bins + index] = 1
    columns[:, -1] = confidence
    return columns


def reading_of(records: Records, reading: str = "softmax") -> tuple[np.ndarray, np.ndarray, str] | None:
    """Confidence (N,), correctness (N,) and name prefix of a reading.

    None where the reading has nan: a classifier without cosines has no Dirichlet mean, a broken one no softmax.

    Raises:
        UserError: unknown reading, or confidences that are no probabilities.
    """
    if reading not in READINGS:
        raise UserError(f"reading '{reading}' is unknown; there are: {', '.join(READINGS)}")
    column, prefix = READINGS[reading]
    if column not in records or np.isnan(np.asarray(records[column], np.float64)).any():
        return None
    try:
        return *checked(records[column], records["correct"]), prefix
    except ValueError as error:
        raise UserError(f"column '{column}' of the records: {error}") from None


def bins_of(records: Records, bins: int = 15, reading: str = "softmax", scheme: str = "width") -> ReliabilityBins:
    """The reliability bins of records: what `calibration` sums up and what a diagram draws.

    Empty bins where the reading has nan.
    """
    confidence, correct, _ = reading_of(records, reading) or (np.empty(0), np.empty(0), "")
    return reliability_bins(confidence, correct, bins, scheme)
