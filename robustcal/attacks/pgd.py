"""Projected gradient descent in the Linf or L2 ball (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import L2Ball, LinfBall, keep_better, make_ball
from .losses import Loss, find_loss


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Classes below which loss=dlr is replaced by the logit difference."""
    return {"min_classes": 3 if arguments["loss"] == "dlr" else 2}


@register.attack(kind="white-box", meta_of=meta_of, version=1)
def pgd(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 10,
    step: float | None = None, loss: str = "ce", norm: str = "linf", restarts: int = 1, momentum: float = 0.0,
    start: str = "uniform", return_: str = "best",
) -> Tensor:  # fmt: skip
    """x_{k+1} = P(x_k + step * sign(grad loss)), P the projection onto ball and range; all samples, all steps.

    Args:
        step: step size in pixel units; default 2.5 eps / steps (l2: 4 eps / steps), at most eps.
        loss: ce | margin | dlr | bce | bce-raw, summed over the batch.
        momentum: decay of the accumulated gradient (Dong et al. 2018, eq. 6); 0 is plain PGD.
        start: "uniform" in the ball, or "clean".
        return_: "best", the highest-loss iterate of all restarts; "last", the last one (of the best restart).
    """
    check_choice("start", start, ("uniform", "clean"))
    check_choice("return", return_, ("best", "last"))
    check_positive(steps=steps, restarts=restarts)
    check_size(step)
    check_not_negative(momentum=momentum)
    objective, ball = find_loss(loss), make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step
    best = None
    for _ in range(restarts):
        first = ball.random(noise) if start == "uniform" else ball.clean
        score = return_ == "best" or restarts > 1
        found = ascend(classifier, ball, first, labels, objective, steps, size, momentum, return_, score)
        best = keep_better(best, *found) if score else found
    return best[0]


def ascend(
    classifier: Classifier, ball: LinfBall | L2Ball, x: Tensor, labels: Tensor, loss: Loss, steps: int, size: float,
    momentum: float = 0.0, return_: str = "best", score: bool = True,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """One run of gradient ascent from x: (images, their losses); the losses are None where `score` is off."""
    best, velocity = None, None
    for _ in range(steps):
        gradient, losses = gradient_of(classifier, x, labels, loss)
        if return_ == "best":
            best = keep_better(best, x, losses)
        if momentum:
            gradient = gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
            velocity = gradient = gradient if velocity is None else momentum * velocity + gradient
        x = ball.step(x, gradient, size)
    if not score:
        return x, None
    with torch.no_grad():
        losses = loss(classifier(x), labels)
    return keep_better(best, x, losses)


def gradient_of(classifier: Classifier, x: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss with respect to the images, and the loss of each sample (N,)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        losses = loss(classifier(x), labels)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach()


def default_step(eps: float, steps: int, norm: str = "linf") -> float:
    """2.5 eps / steps, at most eps: the path can cross the ball and still turn. 4 eps / steps in the L2 ball.

    There a random start lies almost at right angles to the gradient, and each step only shrinks that part by
    1 + step / eps: 2.5 would leave a tenth of it.
    """
    return min(eps, (4.0 if norm == "l2" else 2.5) * eps / steps)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `UserError` unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name}={value} is not valid; there are: {', '.join(choices)}")


def check_positive(**counts: int | None) -> None:
    """Raise `UserError` unless every count that is given is at least 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be 1 or more")


def check_size(step: float | None) -> None:
    """Raise `UserError` for a step, in pixel units, that leads nowhere: it must be above 0. None: the default."""
    if step is not None and not 0 < step < float("inf"):
        raise UserError(f"step={step} must be a number above 0, like step=1/255")


def check_not_negative(**numbers: float | None) -> None:
    """Raise `UserError` unless every number that is given is at least 0."""
    for name, value in numbers.items():
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"{name}={value} must be 0 or more")
