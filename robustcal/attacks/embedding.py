"""Embedding attack: the image embedding moved as far as possible, no label and no text used (Schlarmann et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .pgd import ascend, best_of, check_choice, check_not_negative, check_positive, check_size, default_step


@register.attack(kind="white-box", version=1)
def embedding(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 10,
    step: float | None = None, norm: str = "linf", restarts: int = 1, momentum: float = 0.0, return_: str = "best",
) -> Tensor:  # fmt: skip
    """Sign ascent on |phi(x + delta) - phi(x)|_2^2 from a uniform start, phi the embedding before it is normalised.

    The inner problem of FARE (arXiv 2402.12336, eq. 3): an attacker who knows the image tower and nothing of the task. Of a
    classifier without an image tower the logits are the embedding.

    Args:
        steps, step, norm, restarts, momentum: as in ``pgd``.
        return_: "best", the iterate farthest from the clean embedding; "last", the last one (of the farthest restart).
    """
    check_choice("return", return_, ("best", "last"))
    check_positive(steps=steps, restarts=restarts)
    check_size(step)
    check_not_negative(momentum=momentum)
    embed = getattr(classifier, "embed", classifier)
    with torch.no_grad():
        clean = embed(images).detach()
    ball = make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step

    def distance(moved: Tensor, _: Tensor) -> Tensor:
        return (moved - clean).square().sum(1)

    score = return_ == "best" or restarts > 1
    starts = (ball.random(noise) for _ in range(restarts))
    return best_of(ascend(embed, ball, start, labels, distance, steps, size, momentum, return_, score) for start in starts)
