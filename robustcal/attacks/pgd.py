"""Projected gradient descent in the Linf or L2 ball (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import L2Ball, LinfBall, Scored, keep_better, make_ball
from .losses import Loss, find_loss, margin

#: All that the loops below need of a classifier: images (N, 3, H, W) -> logits, differentiable.
Logits = Callable[[Tensor], Tensor]
#: The return rule of evaluations that stop at success: the first misclassified iterate, the last one where there is none.
FIRST_SUCCESS = "success-else-last"


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Classes below which loss=dlr is replaced by the logit difference; the return rule that voids calibration."""
    return {
        "min_classes": 3 if arguments["loss"] == "dlr" else 2,
        "accuracy_only": arguments["return_"] == FIRST_SUCCESS,
    }


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
        return_: "best", the highest-loss iterate of all restarts; "last", the last one (of the best restart);
            "success-else-last", the first misclassified one, the start among them, or the last (of the last restart).
    """
    check_choice("start", start, ("uniform", "clean"))
    check_choice("return", return_, ("best", "last", FIRST_SUCCESS))
    check_positive(steps=steps, restarts=restarts)
    check_size(step)
    check_not_negative(momentum=momentum)
    objective, ball = find_loss(loss), make_ball(images, threat, norm)
    size = default_step(threat.eps, steps, norm) if step is None else step
    starts = (ball.random(noise) if start == "uniform" else ball.clean for _ in range(restarts))
    if return_ == FIRST_SUCCESS:
        return first_successes(classifier, ball, starts, labels, objective, steps, size, momentum)
    score = return_ == "best" or restarts > 1
    return best_of(
        ascend(classifier, ball, first, labels, objective, steps, size, momentum, return_, score) for first in starts
    )


def first_successes(
    classifier: Logits, ball: LinfBall | L2Ball, starts: Iterable[Tensor], labels: Tensor, loss: Loss, steps: int,
    size: float, momentum: float = 0.0,
) -> Tensor:  # fmt: skip
    """Runs from each of `starts` (N, 3, H, W) in turn; a sample rests at its first misclassified iterate, for good."""
    found, rows = ball.clean.clone(), torch.arange(len(labels), device=labels.device)
    for start in starts:
        if len(rows) == 0:
            break
        x, velocity = start[rows], None
        for step in range(steps + 1):
            gradient, _, logits = look(classifier, x, labels[rows], loss, slope=step < steps)
            found[rows] = x
            right = margin(logits, labels[rows]) <= 0
            rows, x = rows[right], x[right]
            if step == steps or len(rows) == 0:
                break
            gradient, velocity = accumulate(gradient[right], None if velocity is None else velocity[right], momentum)
            x = ball.select(rows).step(x, gradient, size)
    return found


def ascend(
    classifier: Logits, ball: LinfBall | L2Ball, x: Tensor, labels: Tensor, loss: Loss, steps: int, size: float,
    momentum: float = 0.0, return_: str = "best", score: bool = True,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """One run of gradient ascent from x: (images, their losses); the losses are None where `score` is off."""
    best: Scored | None = None
    velocity: Tensor | None = None
    for _ in range(steps):
        gradient, losses = gradient_of(classifier, x, labels, loss)
        if return_ == "best":
            best = keep_better(best, x, losses)
        gradient, velocity = accumulate(gradient, velocity, momentum)
        x = ball.step(x, gradient, size)
    if not score:
        return x, None
    with torch.no_grad():
        losses = loss(classifier(x), labels)
    return keep_better(best, x, losses)


def best_of(runs: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """Per sample, the images of the run with the largest loss; of a single run without losses, its own."""
    best: Scored | None = None
    for images, losses in runs:
        if losses is None:
            return images
        best = keep_better(best, images, losses)
    assert best is not None  # there is at least one run
    return best[0]


def accumulate(gradient: Tensor, velocity: Tensor | None, momentum: float) -> tuple[Tensor, Tensor | None]:
    """The direction of a step, and what the next one is given as `velocity`: without momentum, the gradient and None."""
    if not momentum:
        return gradient, None
    gradient = gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    velocity = gradient if velocity is None else momentum * velocity + gradient
    return velocity, velocity


def gradient_of(classifier: Logits, x: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss with respect to the images, and the loss of each sample (N,)."""
    return look(classifier, x, labels, loss)[:2]


def look(
    classifier: Logits, x: Tensor, labels: Tensor, loss: Loss, slope: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the summed loss with respect to the images, the loss of each sample (N,), and the logits.

    Without `slope` there is no backward pass, and the gradient is 0.
    """
    x = x.detach().requires_grad_(slope)
    with torch.set_grad_enabled(slope):
        logits = classifier(x)
        losses = loss(logits, labels)
        gradient = torch.autograd.grad(losses.sum(), x)[0] if slope else torch.zeros_like(x)
    return gradient, losses.detach(), logits.detach()


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
