"""What minimal-norm attacks share: the nearest misclassified image of every sample, and its distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .balls import pick


class Nearest:
    """Per sample the misclassified image of the smallest perturbation seen so far, the clean one where there is none.

    Attributes:
        norm: its size (N,), in the norm that is minimised; infinite where there is none.
    """

    def __init__(self, clean: Tensor, norm: str):
        self.clean, self.images, self.of = clean, clean, norm
        self.norm = torch.full_like(clean[:, 0, 0, 0], torch.inf)

    def note(self, images: Tensor, wrong: Tensor) -> None:
        """Images (N, 3, H, W) of one step, and which of them are misclassified (N,)."""
        size = length(images - self.clean, self.of)
        better = wrong & (size < self.norm)
        self.images, self.norm = pick(better, images, self.images), torch.where(better, size, self.norm)


def length(change: Tensor, norm: str) -> Tensor:
    """Size of each perturbation: (N,)."""
    flat = change.flatten(1)
    size: Tensor = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
    return size


def onto(change: Tensor, size: Tensor, norm: str) -> Tensor:
    """Each perturbation brought into the ball of its own size (N,): the nearest point of it."""
    radius = size.view(-1, 1, 1, 1)
    if norm == "linf":
        return torch.minimum(torch.maximum(change, -radius), radius)
    return change * (radius / length(change, "l2").clamp(min=1e-12).view(-1, 1, 1, 1)).clamp(max=1)


def annealed(first: float, last: float, step: int, steps: int) -> float:
    """Half a cosine from `first` at step 0 to `last` after `steps`."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
