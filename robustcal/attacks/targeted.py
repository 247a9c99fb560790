"""Targeted PGD: towards one wrong class, chosen by its rank among the clean logits (Kurakin et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import make_ball
from .losses import Loss
from .pgd import ascend, best_of, check_choice, check_positive, check_size, default_step


@register.attack(kind="white-box", version=1)
def targeted(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, rank: int = 1, steps: int = 10,
    step: float | None = None, loss: str = "ce", norm: str = "linf", restarts: int = 1, return_: str = "best",
) -> Tensor:  # fmt: skip
    """x_{k+1} = P(x_k + step * sign(grad loss)), the loss rising as the target class gets likelier; uniform start.

    The record tells whether the label was lost, to whatever class; the worst case counts it like any other attack.

    Args:
        rank: which wrong class is the target: 1, the one of the largest clean logit; -1, that of the smallest (the least
            likely class of Kurakin et al.).
        loss: "ce", ln p_t; "margin", l_t - max_{k != t} l_k, free of the logit scale.
        step, norm, restarts: as in ``pgd``.
        return_: "best", the iterate nearest to the target by this loss; "last", the last one (of the best restart).

    Raises:
        UserError: if there is no wrong class of that rank, or there are several labels per image.
    """
    check_choice("loss", loss, ("ce", "margin"))
    check_choice("return", return_, ("best", "last"))
    check_positive(steps=steps, restarts=restarts)
    check_size(step)
    with torch.no_grad():
        target = wrong_class(classifier(images), labels, rank)
    ball = make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step
    score = return_ == "best" or restarts > 1
    runs = (
        ascend(classifier, ball, ball.random(noise), target, TOWARDS[loss], steps, size, 0.0, return_, score)
        for _ in range(restarts)
    )
    return best_of(runs)


def wrong_class(logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """The wrong class of this rank by its logit, 1 for the largest, -1 for the smallest: (N,) int64.

    Args:
        logits, labels: (N, C), and (N,) class indices.
    """
    if labels.ndim != 1:
        raise UserError("a targeted attack needs one label per image; for multi-label data use pgd or cw")
    wrong = logits.shape[1] - 1
    if not 1 <= abs(rank) <= wrong:
        raise UserError(f"rank={rank} names no wrong class; they are 1 to {wrong}, or -1 to -{wrong} from the least likely")
    order = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order[:, rank - 1 if rank > 0 else wrong + rank]


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """ln p_t: (N,)."""
    return -F.cross_entropy(logits, target, reduction="none")


def lead(logits: Tensor, target: Tensor) -> Tensor:
    """l_t - max_{k != t} l_k, positive where the target is predicted: (N,)."""
    own = logits.gather(1, target[:, None])[:, 0]
    return own - logits.scatter(1, target[:, None], -torch.inf).amax(1)


TOWARDS: dict[str, Loss] = {"ce": log_probability, "margin": lead}
