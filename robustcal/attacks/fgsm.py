"""Fast gradient sign method: one step of size eps (Goodfellow et al. 2015, eq. 1)."""

from __future__ import annotations

from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .losses import find_loss
from .pgd import check_choice, check_size, gradient_of


@register.attack(kind="white-box", returns="last", version=1)
def fgsm(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *,
    step: float | None = None, loss: str = "ce", norm: str = "linf", start: str = "clean",
) -> Tensor:  # fmt: skip
    """x' = P(x + step * sign(grad loss)); with norm=l2 the unit-norm gradient takes the sign's place.

    Args:
        step: default eps. With start=uniform and a step of 1.25 eps this is the form of Wong et al. 2020.
        start: "clean", or "uniform" in the ball.
    """
    check_choice("start", start, ("clean", "uniform"))
    check_size(step)
    ball = make_ball(images, threat, norm)
    first = ball.random(noise) if start == "uniform" else ball.clean
    gradient, _ = gradient_of(classifier, first, labels, find_loss(loss))
    return ball.step(first, gradient, threat.eps if step is None else step)
