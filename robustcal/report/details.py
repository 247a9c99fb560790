"""What a diagram needs of a cell, small enough to keep for every cell: bins, histograms, a curve, a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cell import Cell
from ..metrics.bins import ReliabilityBins
from ..metrics.calibration import bins_of
from ..metrics.selective import risk_coverage
from ..types import Records
from .catalogue import BINS

HISTOGRAM_BINS = 30
CURVE_POINTS = 100
SAMPLES = 12


@dataclass(frozen=True)
class Shown:
    """One sample as the page shows it. `before` and `trust`: prediction and confidence on the clean image."""

    id: str
    label: str
    prediction: str
    correct: bool
    confidence: float
    before: str | None
    trust: float | None
    flags: str


@dataclass(frozen=True)
class Details:
    """A cell's diagrams as numbers.

    Attributes:
        bins: the reliability bins behind the ECE.
        confidences, entropies: counts over [0, 1] and [0, log C].
        most: log C, the largest entropy possible.
        coverage, risk: the risk-coverage curve at `CURVE_POINTS` coverages.
        samples: the most confident mistakes first.
    """

    bins: ReliabilityBins
    confidences: np.ndarray
    entropies: np.ndarray
    most: float
    coverage: np.ndarray
    risk: np.ndarray
    samples: tuple[Shown, ...]


def describe(cell: Cell, records: Records, clean: Records | None, bins: int = BINS) -> Details:
    """Make the details of a cell from its records, its reliability diagram over so many `bins`."""
    names = cell.classnames
    most = float(np.log(max(len(names), 2)))
    confidence = np.nan_to_num(np.asarray(records["confidence"], dtype=np.float64))
    entropy = np.nan_to_num(np.asarray(records["entropy"], dtype=np.float64))
    counts = np.histogram(np.clip(confidence, 0, 1), HISTOGRAM_BINS, (0, 1))[0]
    entropies = np.histogram(np.clip(entropy, 0, most), HISTOGRAM_BINS, (0, most))[0]
    coverage, risk = curve(records)
    return Details(bins_of(records, bins), counts, entropies, most, coverage, risk, tuple(shown(names, records, clean)))


def curve(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve at `CURVE_POINTS` coverages in (0, 1]."""
    coverage = np.linspace(0, 1, CURVE_POINTS + 1)[1:]
    n = len(records["correct"])
    if n == 0:
        return coverage, np.full(len(coverage), np.nan)
    known, risk = risk_coverage(records)
    # Each tie of confidences is one step: take the first that covers at least so much.
    return coverage, risk[np.minimum(np.searchsorted(known, coverage - 1e-9), len(risk) - 1)]


def shown(names: Sequence[str], records: Records, clean: Records | None, count: int = SAMPLES) -> list[Shown]:
    """The most confident mistakes; where there are fewer than `count`, the least confident hits after them."""
    correct = np.asarray(records["correct"], dtype=bool)
    confidence = np.asarray(records["confidence"], dtype=np.float64)
    order = np.lexsort((np.arange(len(correct)), np.where(correct, confidence, -confidence), correct))[:count]
    labels = records.get("labels")
    result = []
    for i in order:
        positives = (
            [_name(names, k) for k in labels[i]] if labels is not None else [_name(names, records["label"][i])]
        )
        before = None if clean is None else _name(names, clean["prediction"][i])
        trust = None if clean is None else float(clean["confidence"][i])
        prediction = _name(names, records["prediction"][i])
        result.append(
            Shown(str(records["id"][i]), ", ".join(positives) or "none", prediction, bool(correct[i]),
                  float(confidence[i]), before, trust, str(records["flags"][i]))
        )  # fmt: skip
    return result


def _name(names: Sequence[str], index: Any) -> str:
    return str(names[int(index)]) if 0 <= int(index) < len(names) else f"class {int(index)}"
