"""The "CW" of the robust CLIP literature: PGD on the logit margin inside the eps-ball."""

from __future__ import annotations

from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .balls import make_ball
from .losses import margin
from .pgd import ascend, best_of, check_choice, check_not_negative, check_positive, check_size, default_step


@register.attack(kind="white-box", version=1)
def cw(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 10,
    step: float | None = None, kappa: float | None = None, norm: str = "linf", restarts: int = 1,
    return_: str = "best",
) -> Tensor:  # fmt: skip
    """Ascend max_{k != y} l_k - l_y from a uniform start; the margin of Carlini & Wagner 2017 (f_6) within a budget.

    Not the minimal-norm attack of that paper: the radius is fixed. Multi-hot labels: largest negative logit minus the
    mean positive logit.

    Args:
        step: step size in pixel units; default 2.5 eps / steps (l2: 4 eps / steps), at most eps.
        kappa: stop ascending once the wrong logit leads by this much; none never stops. The published value, 50 on
            logits of scale 100, never binds, so the default is the same attack and free of the logit scale.
        return_: "best", the highest-margin iterate of all restarts; "last", the last one (of the best restart).
    """
    check_choice("return", return_, ("best", "last"))
    check_positive(steps=steps, restarts=restarts)
    check_size(step)
    check_not_negative(kappa=kappa)
    ball = make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value = margin(logits, labels)
        return value if kappa is None else value.clamp(max=kappa)

    score = return_ == "best" or restarts > 1
    return best_of(
        ascend(classifier, ball, ball.random(noise), labels, loss, steps, size, 0.0, return_, score)
        for _ in range(restarts)
    )
