"""MultiTargeted: PGD on l_t - l_y once for each of the likeliest wrong classes t, the best kept (Gowal et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .losses import Loss, margin
from .pgd import ascend, best_of, check_choice, check_positive, check_size, default_step
from .targeted import wrong_class


@register.attack(kind="white-box", version=1)
def multitargeted(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, targets: int = 9, steps: int = 10,
    step: float | None = None, norm: str = "linf", restarts: int = 1, return_: str = "best",
) -> Tensor:  # fmt: skip
    """Runs of sign ascent on l_t - l_y, a random start each; of all ends the one with the largest margin.

    The surrogate loss of Gowal et al. (arXiv 1910.09338, section 3). ``apgd:loss=targeted`` climbs the same difference over a
    ratio, with steps that shrink by themselves.

    Args:
        targets: wrong classes tried, the likeliest on the clean image first; at most C - 1.
        steps, step: of every run, as in ``pgd``.
        restarts: runs for each target.
        return_: "best" or "last" iterate of a run, by its own loss; of the runs, that of the largest margin.
    """
    check_choice("return", return_, ("best", "last"))
    check_positive(targets=targets, steps=steps, restarts=restarts)
    check_size(step)
    with torch.no_grad():
        clean = classifier(images)
    ball = make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step

    def run(target: Tensor) -> tuple[Tensor, Tensor]:
        found, _ = ascend(classifier, ball, ball.random(noise), labels, against(target), steps, size, 0.0, return_)
        with torch.no_grad():
            return found, margin(classifier(found), labels)

    count = min(targets, clean.shape[1] - 1)
    return best_of(run(wrong_class(clean, labels, rank)) for rank in range(1, count + 1) for _ in range(restarts))


def against(target: Tensor) -> Loss:
    """The loss l_t - l_y for these targets (N,)."""
    return lambda logits, labels: (logits.gather(1, target[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
