"""The feasible set of an attack, eps-ball intersected with the pixel range: start, steepest step and projection."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..types import Threat, UserError


def norms(images: Tensor) -> Tensor:
    """Euclidean norm of each image, shaped (N, 1, 1, 1) to multiply with."""
    length: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return length.view(-1, 1, 1, 1)


class LinfBall:
    """|x - clean| <= eps per element. Its bounds are formed once; a step is then one add and one clamp."""

    def __init__(self, clean: Tensor, threat: Threat):
        self.clean, self.eps = clean, threat.eps
        self.lower = (clean - threat.eps).clamp_(min=threat.low)
        self.upper = (clean + threat.eps).clamp_(max=threat.high)

    def select(self, rows: Tensor) -> LinfBall:
        """The ball of some samples only."""
        part = LinfBall.__new__(LinfBall)
        part.clean, part.eps, part.lower, part.upper = self.clean[rows], self.eps, self.lower[rows], self.upper[rows]
        return part

    def project(self, images: Tensor) -> Tensor:
        return images.clamp(self.lower, self.upper)

    def random(self, noise: Noise) -> Tensor:
        """Uniform in the ball."""
        return self.project(self.clean + noise.uniform(self.clean.shape[1:], -self.eps, self.eps))

    def step(self, images: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Steepest ascent: `size` (one number, or one per sample shaped (N, 1, 1, 1)) along the gradient's sign."""
        return gradient.sign().mul_(size).add_(images).clamp_(self.lower, self.upper)  # in place: one new tensor


class L2Ball:
    """||x - clean||_2 <= eps per image."""

    def __init__(self, clean: Tensor, threat: Threat):
        self.clean, self.eps, self.low, self.high = clean, threat.eps, threat.low, threat.high

    def select(self, rows: Tensor) -> L2Ball:
        """The ball of some samples only."""
        part = L2Ball.__new__(L2Ball)
        part.clean, part.eps, part.low, part.high = self.clean[rows], self.eps, self.low, self.high
        return part

    def project(self, images: Tensor) -> Tensor:
        """Shrink onto the ball, then clip to the range (clipping can only move towards the clean image)."""
        change = images - self.clean
        shrink = (self.eps / norms(change).clamp(min=1e-12)).clamp(max=1)
        return (self.clean + change * shrink).clamp(self.low, self.high)

    def random(self, noise: Noise) -> Tensor:
        """Uniform in the ball, before clipping to the range."""
        direction = noise.normal(self.clean.shape[1:])
        share = noise.uniform(()).view(-1, 1, 1, 1).double() ** (1 / self.clean[0].numel())
        return self.project(self.clean + self.eps * direction / norms(direction) * share.to(direction.dtype))

    def step(self, images: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Steepest ascent: `size` along the unit-norm gradient; a zero gradient does not move."""
        return self.project(images + size * gradient / norms(gradient).clamp(min=1e-12))


BALLS: dict[str, type[LinfBall] | type[L2Ball]] = {"linf": LinfBall, "l2": L2Ball}


def make_ball(clean: Tensor, threat: Threat, norm: str) -> LinfBall | L2Ball:
    """The ball of this norm around the clean images.

    Raises:
        UserError: if `norm` is not linf or l2.
    """
    if norm not in BALLS:
        raise UserError(f"unknown norm '{norm}'; there are: {', '.join(BALLS)}")
    return BALLS[norm](clean.detach(), threat)


def pick(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Per sample, the new image where `mask` (N,) says so."""
    return torch.where(mask.view(-1, 1, 1, 1), new, old)


#: Images (N, 3, H, W) and their losses (N,).
Scored = tuple[Tensor, Tensor]


def keep_better(best: Scored | None, images: Tensor, losses: Tensor) -> Scored:
    """Per sample, the images of the larger loss; a loss that is not a number never replaces a number."""
    if best is None:
        return images, losses
    better = (losses > best[1]) | (best[1].isnan() & ~losses.isnan())
    return pick(better, images, best[0]), torch.where(better, losses, best[1])
