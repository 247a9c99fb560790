"""The inner attack of adversarial training: linf PGD on any per-sample loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Noise
from ..types import parse_radius
from .divergence import Diverged


@dataclass(frozen=True)
class InnerAttack:
    """Settings of the inner attack; radii in units of the pixel range [0, 1]."""

    eps: float
    step: float
    steps: int

    @classmethod
    def read(cls, eps: str, step: str, steps: int) -> InnerAttack:
        return cls(float(parse_radius(eps)), float(parse_radius(step)), steps)

    def __call__(self, loss: Callable[[Tensor], Tensor], images: Tensor, noise: Noise) -> Tensor:
        """Images (N, 3, H, W) within `eps` of the given ones that maximise `loss` (N,).

        Uniform random start clipped to the image box, sign steps, projection on ball and box after each; the last
        iterate is returned. Gradients are taken with respect to the images alone: the parameters' are untouched.
        The loss is summed, so one sample's attack does not depend on the batch it stands in.

        Raises:
            Diverged: if the gradient is not finite.
        """
        if self.eps == 0 or self.steps == 0:
            return images
        start = noise.uniform(images.shape[1:], -self.eps, self.eps)
        adversarial = (images + start).clamp(0, 1)
        for _ in range(self.steps):
            adversarial.requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(adversarial).sum(), adversarial)
            moved = adversarial.detach() + self.step * gradient.sign()
            adversarial = images + (moved - images).clamp(-self.eps, self.eps)
            adversarial = adversarial.clamp(0, 1)
        if not torch.isfinite(gradient).all():
            raise Diverged("the gradient of the inner attack is not finite")
        return adversarial.detach()
