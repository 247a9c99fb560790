"""Auto-PGD: step sizes halve per sample when progress stalls (Croce & Hein 2020), on ce, dlr or targeted dlr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import L2Ball, LinfBall, make_ball, norms, pick
from .losses import find_loss, margin, targeted_dlr
from .pgd import check_choice, check_positive

Score = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits -> (loss to climb, value to keep the best of), both (N,)


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Classes below which the loss is replaced by the logit difference; the return rule that voids calibration."""
    return {
        "min_classes": {"dlr": 3, "targeted": 4}.get(arguments["loss"], 2),
        "accuracy_only": arguments["return_"] == "success-else-clean",
    }


@register.attack(kind="white-box", meta_of=meta_of, version=2)
def apgd(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, steps: int = 100,
    loss: str = "ce", targets: int = 9, norm: str = "linf", restarts: int = 1, return_: str = "best",
) -> Tensor:  # fmt: skip
    """z = P(x_k + eta sign(g)); x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})); eta starts at 2 eps.

    Args:
        steps: updates per run; one input gradient more.
        loss: ce | dlr | margin | bce | targeted. Targeted runs once for each of the most likely wrong classes and
            keeps the iterate of the largest untargeted margin. Below 4 (dlr: 3) classes the logit difference is used.
        targets: wrong classes tried by loss=targeted, at most C - 1.
        return_: "best", the highest-loss iterate of every sample; "success-else-clean", the highest-loss
            misclassified iterate, the clean image where there is none or nothing had to be done (further restarts
            and targets then run on the survivors only).
    """
    check_choice("return", return_, ("best", "success-else-clean"))
    check_positive(steps=steps, restarts=restarts, targets=targets)
    if loss != "targeted":
        find_loss(loss)
    ball = make_ball(images, threat, norm)
    with torch.no_grad():
        clean = classifier(images)
    runs = _target_runs(clean, labels, targets) if loss == "targeted" else [None]
    result, value = images.clone(), torch.full_like(clean[:, 0], -torch.inf)
    active = torch.arange(len(images), device=images.device)
    if return_ == "success-else-clean":
        active = active[(margin(clean, labels) <= 0)[active]]
    for target in runs * restarts:
        if len(active) == 0:
            break
        rows, own = ball.select(active), labels[active]
        score = _score(loss, own, None if target is None else target[active])
        found = climb(classifier, rows, _start(rows, noise.select(active)), own, score, steps)
        if return_ == "best":
            better = found.value > value[active]
            result[active] = pick(better, found.images, result[active])
            value[active] = torch.where(better, found.value, value[active])
        else:
            won = found.fooled > -torch.inf
            result[active[won]] = found.fooling[won]
            active = active[~won]
    return result


class Climb:
    """The state of one run: best images by loss (with gradient), best by value, best misclassified."""

    def __init__(self, images: Tensor):
        self.loss = self.value = self.fooled = torch.full_like(images[:, 0, 0, 0], -torch.inf)
        self.peak = self.peak_gradient = self.images = self.fooling = images

    def note(self, x: Tensor, gradient: Tensor, loss: Tensor, value: Tensor, wrong: Tensor) -> None:
        up = loss > self.loss
        self.peak, self.peak_gradient = pick(up, x, self.peak), pick(up, gradient, self.peak_gradient)
        self.loss = torch.where(up, loss, self.loss)
        better = value > self.value
        self.images, self.value = pick(better, x, self.images), torch.where(better, value, self.value)
        fooled = wrong & (value > self.fooled)
        self.fooling, self.fooled = pick(fooled, x, self.fooling), torch.where(fooled, value, self.fooled)


def climb(
    classifier: Classifier, ball: LinfBall | L2Ball, x: Tensor, labels: Tensor, score: Score, steps: int
) -> Climb:
    """One run of APGD from x (their algorithm 1), all samples side by side, no host synchronisation."""
    state, previous = Climb(x), x
    gradient, last = _look(classifier, x, labels, score, state)
    last = torch.zeros_like(last)  # the released code compares the first update's loss with 0, which counts for dlr
    eta = torch.full_like(last, 2 * ball.eps).view(-1, 1, 1, 1)
    window, shortest, shrink = windows(steps)
    since, rises = 0, torch.zeros_like(last)
    halved, checked = torch.ones_like(last, dtype=torch.bool), state.loss
    for step in range(steps):
        weight = 0.75 if step else 1.0
        z = ball.step(x, gradient, eta)
        x, previous = ball.project(x + weight * (z - x) + (1 - weight) * (x - previous)), x
        gradient, loss = _look(classifier, x, labels, score, state)
        rises, since, last = rises + (loss > last), since + 1, loss
        if since == window:
            stalled = (rises <= 0.75 * window) | (~halved & (state.loss <= checked))
            eta = pick(stalled, eta / 2, eta)
            x, gradient = pick(stalled, state.peak, x), pick(stalled, state.peak_gradient, gradient)
            halved, checked, rises = stalled, state.loss, torch.zeros_like(rises)
            since, window = 0, max(window - shrink, shortest)
    return state


def windows(steps: int) -> tuple[int, int, int]:
    """Updates before the first check of the step size, the fewest between two, and by how many they shrink each time."""
    return max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)


def _look(
    classifier: Classifier, x: Tensor, labels: Tensor, score: Score, state: Climb
) -> tuple[Tensor, Tensor]:
    """Gradient and loss at x, noted in the state."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = classifier(x)
        loss, value = score(logits)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    loss = loss.detach()
    state.note(x.detach(), gradient, loss, value.detach(), margin(logits.detach(), labels) > 0)
    return gradient, loss


def _score(name: str, labels: Tensor, target: Tensor | None) -> Score:
    if target is not None:
        return lambda logits: (targeted_dlr(logits, labels, target), margin(logits, labels))
    loss = find_loss(name)

    def score(logits: Tensor) -> tuple[Tensor, Tensor]:
        value = loss(logits, labels)
        return value, value

    return score


def _start(ball: LinfBall | L2Ball, noise: Noise) -> Tensor:
    """A random direction scaled so that it reaches the sphere of the ball, then clipped to the range."""
    shape = ball.clean.shape[1:]
    if isinstance(ball, LinfBall):
        draw = noise.uniform(shape, -1, 1)
        size = draw.abs().amax((1, 2, 3), keepdim=True)
    else:
        draw = noise.normal(shape)
        size = norms(draw)
    return ball.project(ball.clean + ball.eps * draw / size.clamp(min=1e-12))


def _target_runs(logits: Tensor, labels: Tensor, targets: int) -> list[Tensor]:
    """The most likely wrong classes, the likeliest first: one (N,) tensor per run."""
    if labels.ndim != 1:
        raise UserError("apgd:loss=targeted needs one label per image; for multi-label data use loss=margin")
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return list(wrong.topk(min(targets, logits.shape[1] - 1), dim=1).indices.t())
