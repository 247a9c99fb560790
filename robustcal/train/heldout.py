"""Clean and robust accuracy and calibration on held-out source data, while training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..noise import Noise
from ..types import Dataset
from .inner import InnerAttack


def measure(
    classifier: ClipClassifier, dataset: Dataset, rows: Sequence[int], attack: InnerAttack, batch: int, seed: int
) -> dict[str, float]:
    """Accuracy and ECE (15 bins) of these samples, clean and (with attack steps) under PGD on the label; shares in [0, 1]."""
    device = next(classifier.buffers()).device
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"clean": [], "robust": []}
    for start in range(0, len(rows), batch):
        part = dataset.read(list(rows[start : start + batch]))
        images, labels = part.images.to(device), part.labels.to(device)
        seen = {"clean": images}
        if attack.steps:
            noise = Noise(seed, [f"held-out/{sample}" for sample in part.ids], device)
            loss = lambda x: F.cross_entropy(classifier(x), labels, reduction="none")  # noqa: E731  (used at once)
            seen["robust"] = attack(loss, images, noise)
        for name, pixels in seen.items():
            with torch.no_grad():
                confidence, prediction = classifier(pixels).softmax(-1).max(-1)
            found[name].append((confidence.cpu(), (prediction == labels).cpu()))
    result = {}
    for name, pairs in found.items():
        if not pairs:
            continue
        confidence, correct = (torch.cat(column) for column in zip(*pairs))
        result[f"{name}_accuracy"] = correct.double().mean().item()
        result[f"{name}_ece"] = calibration_gap(confidence, correct)
    return result


def calibration_gap(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (low, high], as a share in [0, 1]."""
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence.double() - correct.double())
    return float(gap.abs().sum() / len(confidence))


def fit_scale(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The logit scale s > 0 that minimises the mean cross-entropy of ``softmax(s * cosines)``.

    Args:
        pairs: (cosines (N, C), class indices (N,)) of sets of samples; each set may have classes of its own.
    """
    low, high = 0.0, 7.0  # of log s; the loss is convex in s, so it has one valley in log s
    shrink = (5**0.5 - 1) / 2

    def loss(log_scale: float) -> float:
        scale = math.exp(log_scale)
        return sum(F.cross_entropy(cosines.double() * scale, labels, reduction="sum").item() for cosines, labels in pairs)

    while high - low > 1e-4:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
