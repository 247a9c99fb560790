"""Random noise in the ball: the control that every attack must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .losses import cross_entropy
from .pgd import best_of, check_choice, check_positive


@register.attack(kind="control", returns="last", version=1)
def noise(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, restarts: int = 1,
    draw: str = "uniform", norm: str = "linf",
) -> Tensor:  # fmt: skip
    """x + u with u uniform in the ball, or (`draw=corners`) random signs times eps, the largest Linf noise.

    Args:
        restarts: draws per sample; of several the one with the highest cross-entropy is returned.
        draw: "uniform", or "corners" (only with norm=linf).
    """
    check_choice("draw", draw, ("uniform", "corners") if norm == "linf" else ("uniform",))
    check_positive(restarts=restarts)
    ball = make_ball(images, threat, norm)

    def drawn() -> tuple[Tensor, Tensor | None]:
        if draw == "corners":
            found = ball.project(ball.clean + threat.eps * (2 * noise.integers(images.shape[1:], 2) - 1))
        else:
            found = ball.random(noise)
        with torch.no_grad():
            return found, None if restarts == 1 else cross_entropy(classifier(found), labels)

    return best_of(drawn() for _ in range(restarts))
