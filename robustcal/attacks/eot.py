"""Expectation over transformation: PGD on the mean loss over a defence's randomness (Athalye et al. 2018)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .losses import find_loss
from .pgd import ascend, check_choice, check_not_negative, check_positive, check_size, default_step


@register.attack(kind="white-box", version=1)
def eot(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, draws: int = 8,
    steps: int = 10, step: float | None = None, loss: str = "ce", norm: str = "linf", momentum: float = 0.0,
    return_: str = "best",
) -> Tensor:  # fmt: skip
    """PGD whose loss is the mean over `draws` independent draws of the classifier's randomness.

    The attacker knows the defence and its distribution, not the draw that will be deployed: it uses draws 1, 2, ...,
    the judge uses draw 0. A classifier without randomness has one draw, and this is PGD.

    Args:
        draws: draws averaged at every step; each costs a forward and a backward pass.
        step, loss, norm, momentum, return_: as in ``pgd``.
    """
    return mean_ascent(classifier, images, labels, threat, noise, draws, steps, step, loss, norm, momentum, return_)


def mean_ascent(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, draws: int, steps: int,
    step: float | None, loss: str, norm: str, momentum: float, return_: str,
) -> Tensor:  # fmt: skip
    """What `eot` does, for whatever stands for the classifier; parameters as there."""
    check_choice("return", return_, ("best", "last"))
    check_positive(draws=draws, steps=steps)
    check_size(step)
    check_not_negative(momentum=momentum)
    count = draws if getattr(classifier, "randomised", False) else 1
    one, ball = find_loss(loss), make_ball(images, threat, norm)

    def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([one(part, labels) for part in logits.chunk(count)]).mean(0)

    size = default_step(threat.eps, steps, norm) if step is None else step
    averaged, start = Draws(classifier, count), ball.random(noise)
    score = return_ == "best"
    return ascend(averaged, ball, start, labels, mean_loss, steps, size, momentum, return_, score)[0]


class Draws(nn.Module):
    """Images (N, 3, H, W) -> the logits of every draw, one below the other: (count * N, C)."""

    def __init__(self, classifier: Classifier, count: int):
        super().__init__()
        self.classifier, self.count = classifier, count

    def forward(self, images: Tensor) -> Tensor:
        parts = []
        for draw in range(1, self.count + 1):
            drawing = getattr(self.classifier, "drawing", None)
            with drawing(draw) if drawing else nullcontext():
                parts.append(self.classifier(images))
        return torch.cat(parts)
