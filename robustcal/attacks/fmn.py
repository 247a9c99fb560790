"""Fast minimum-norm attack, FMN: the nearest adversarial image, one distance per sample (Pintor et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import norms
from .losses import margin
from .nearest import Nearest, annealed, length, onto
from .pgd import check_choice, check_positive, check_size, look


@register.attack(kind="white-box", returns="nearest-else-clean", accuracy_only=True, version=1)
def fmn(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 100,
    step: float | None = None, gamma: float = 0.05, norm: str = "linf",
) -> Tensor:  # fmt: skip
    """delta <- P_e(delta + a_k g / |g|_2), g the gradient of the margin; the radius e of each sample follows the boundary.

    Their algorithm 1. While a sample has never been misclassified, e is the size of delta plus the first-order distance to the
    boundary, |margin| / |g|_q, and (ours, so as not to stop short of the boundary) a share gamma more; then e shrinks by
    1 - gamma_k where the sample is misclassified, and to its best, and grows by 1 + gamma_k where it is not. Both a_k and
    gamma_k fall by half a cosine, to 1/100 and to 1/500.

    The radius of the sweep is the largest that is looked at: what is found beyond it is projected back. Run it once at a large
    radius; the column of the norm then holds every sample's distance (0 where the clean image is wrong), and
    the layout `minimal-norm` draws accuracy against radius from it.

    Args:
        steps: input gradients.
        step: first step, the Euclidean length of a pixel change; default: that of the ball's corner, eps sqrt(3 H W) (l2: eps).
        gamma: first relative change of the radius, below 1.
    """
    check_choice("norm", norm, ("linf", "l2"))
    check_positive(steps=steps)
    check_size(step)
    check_share(gamma)
    if labels.ndim != 1:
        raise UserError("fmn needs one label per image; for multi-label data use pgd or cw")
    clean, dual = images.detach(), 1 if norm == "linf" else 2
    first = (threat.eps * (clean[0].numel() ** 0.5 if norm == "linf" else 1)) if step is None else step
    found, x, radius = Nearest(clean, norm), clean, torch.zeros_like(clean[:, 0, 0, 0])
    for k in range(steps + 1):
        gradient, value, _ = look(classifier, x, labels, margin, slope=k < steps)
        wrong, seen = value > 0, found.norm < torch.inf
        found.note(x, wrong)
        if k == steps:
            break
        change, rate = x - clean, annealed(gamma, gamma / 500, k, steps)
        ahead = length(change, norm) + value.abs() / gradient.flatten(1).norm(p=dual, dim=1).clamp(min=1e-12)
        grown = torch.where(seen, radius * (1 + rate), ahead * (1 + gamma))
        radius = torch.where(wrong, torch.minimum(torch.where(seen, radius, found.norm) * (1 - rate), found.norm), grown)
        change = change + annealed(first, first / 100, k, steps) * gradient / norms(gradient).clamp(min=1e-12)
        x = (clean + onto(change, radius, norm)).clamp(threat.low, threat.high)
    return clean + onto(found.images - clean, torch.full_like(radius, threat.eps), norm)


def check_share(gamma: float) -> None:
    """Raise `UserError` unless a relative change lies between 0 and 1."""
    if not 0 < gamma < 1:
        raise UserError(f"gamma={gamma} is no relative change of a radius; it lies between 0 and 1, like 0.05")
