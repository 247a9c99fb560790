"""Decoupled direction and norm, DDN: the nearest adversarial image in the L2 norm (Rony et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import norms
from .fmn import check_share
from .losses import cross_entropy, margin
from .nearest import Nearest, annealed
from .pgd import check_positive, check_size, look


@register.attack(kind="white-box", norm="l2", returns="nearest-else-clean", accuracy_only=True, version=1)
def ddn(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 100,
    step: float | None = None, gamma: float = 0.05,
) -> Tensor:  # fmt: skip
    """delta <- e (delta + a_k g / |g|) / |...|; e shrinks by 1 - gamma after a misclassified image, else grows by 1 + gamma.

    Their algorithm 1 without the rounding to 8 bits: direction by the cross-entropy, size by the prediction alone; a_k falls by
    half a cosine to 1/100. As with ``fmn``, the radius of the sweep is the largest that is looked at, and the column
    `l2` holds every sample's distance.

    Args:
        steps: input gradients.
        step: first step and first size of the perturbation, in pixel units; default eps (1 in the paper).
        gamma: relative change of the size, below 1.
    """
    check_positive(steps=steps)
    check_size(step)
    check_share(gamma)
    if labels.ndim != 1:
        raise UserError("ddn needs one label per image; for multi-label data use pgd or cw")
    clean, first = images.detach(), threat.eps if step is None else step
    found, x = Nearest(clean, "l2"), clean
    radius = torch.full_like(clean[:, 0, 0, 0], first)
    for k in range(steps + 1):
        gradient, _, logits = look(classifier, x, labels, cross_entropy, slope=k < steps)
        wrong = margin(logits, labels) > 0
        found.note(x, wrong)
        if k == steps:
            break
        if k:
            radius = radius * torch.where(wrong, 1 - gamma, 1 + gamma)
        change = x - clean + annealed(first, first / 100, k, steps) * gradient / norms(gradient).clamp(min=1e-12)
        size = (radius.view(-1, 1, 1, 1) / norms(change).clamp(min=1e-12)) if first else 0.0
        x = (clean + change * size).clamp(threat.low, threat.high)
    within = (threat.eps / norms(found.images - clean).clamp(min=1e-12)).clamp(max=1)
    return clean + (found.images - clean) * within
