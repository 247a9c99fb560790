"""Confidence attacks: move the confidence, keeping the predicted label or, where the goal says so, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import L2Ball, LinfBall, Scored, make_ball, pick
from .free_label import free_runs
from .losses import margin
from .pgd import best_of, check_choice, check_positive, check_size

GOALS = {
    "down": "confidence-down", "up": "confidence-up", "max": "miscalibration", "random": "random-confidence",
    "gap": "calibration-gap", "known": "look-known", "unknown": "look-unknown",
}  # fmt: skip
#: Goals under which the predicted label may change.
FREE = ("gap", "known", "unknown")


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The goal of the threat model, and whether the engine is to check that the label was kept."""
    check_choice("goal", arguments["goal"], tuple(GOALS))
    return {"goal": GOALS[arguments["goal"]], "keeps_label": arguments["goal"] not in FREE}


@register.attack(kind="white-box", returns="best", meta_of=meta_of, version=1)
def confidence(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, goal: str = "max",
    steps: int = 20, step: float | None = None, norm: str = "linf", start: str = "clean", restarts: int = 1, targets: int = 3,
) -> Tensor:  # fmt: skip
    """Sign ascent on log p_yhat (up) or on the top-2 logit margin towards the rival (down); yhat = clean prediction.

    The goals are those of the calibration attacks of Obadinma et al. (arXiv 2401.02718). A step that would change
    the prediction, or overshoot a wanted confidence, is refused and that sample's step size halved. Of all accepted
    iterates, the clean image among them, the one nearest to the goal is returned.

    Args:
        goal: "down", lowest confidence; "up", highest; "max", maximum miscalibration: down where the clean
            prediction is right, up where it is wrong; "random", drawn per sample from U(1/C + 0.05, 0.99).
            Three goals may change the prediction, by runs of APGD: "gap", the larger of two gaps between confidence and
            correctness, wrong with the highest confidence or right with the lowest; "known", the highest confidence in any
            class, and "unknown", the lowest, which need no label.
        step: first step size in pixel units of the runs that keep the label; default eps / 4.
        start: "clean", or "uniform" in the ball (for a kept label: of samples whose prediction it keeps).
        restarts: further ones start uniformly; of all the iterate nearest to the goal is returned.
        targets: likeliest classes (gap: wrong ones) to run towards, of gap and known.
    """
    check_choice("goal", goal, tuple(GOALS))
    check_choice("start", start, ("clean", "uniform"))
    check_positive(steps=steps, restarts=restarts, targets=targets)
    check_size(step)
    if labels.ndim != 1 and goal not in ("known", "unknown"):
        raise UserError(f"confidence:goal={goal} needs one label per image, which this data set has not")
    ball = make_ball(images, threat, norm)
    kept = () if goal in ("known", "unknown") else kept_runs(goal, classifier, ball, labels, noise, start, steps, step, restarts)
    free = free_runs(goal, classifier, ball, labels, noise, start, steps, restarts, targets) if goal in FREE else ()
    return best_of(chain(kept, free))


def kept_runs(
    goal: str, classifier: Classifier, ball: LinfBall | L2Ball, labels: Tensor, noise: Noise, start: str, steps: int,
    step: float | None, restarts: int,
) -> Iterator[Scored]:  # fmt: skip
    """Runs that keep the prediction: images, and 2 minus how far each is from the goal (N,).

    The confidences -1 and 2 that stand for lowest and highest make that number the gap itself where the goal is "max".
    """
    with torch.no_grad():
        logits = classifier(ball.clean)
    kept, probability = logits.argmax(1), logits.softmax(1).amax(1)
    wanted = wanted_confidence("max" if goal == "gap" else goal, kept, labels, logits.shape[1], noise).to(probability.dtype)
    size = torch.full_like(probability, ball.eps / 4 if step is None else step)
    for turn in range(restarts):
        x = ball.clean
        if start == "uniform" or turn:
            trial = ball.random(noise)
            with torch.no_grad():
                same = classifier(trial).argmax(1) == kept
            x = pick(same, trial, x)
        yield steer(classifier, ball, x, kept, probability, wanted, size, steps)


def steer(
    classifier: Classifier, ball: LinfBall | L2Ball, x: Tensor, kept: Tensor, probability: Tensor, wanted: Tensor, size: Tensor,
    steps: int,
) -> Scored:  # fmt: skip
    """One run from x towards the wanted confidences; `probability` is that of the clean images, which are the first best."""
    best = ball.clean
    nearest, side = (probability - wanted).abs(), (wanted > probability)
    current = slope = x  # both replaced in the first turn
    for turn in range(steps + 1):
        gradient, prediction, probability = _look(classifier, x, kept, side)
        far = (probability - wanted).abs()
        allowed = (prediction == kept) & ((wanted > probability) == side)
        closer = (prediction == kept) & (far < nearest)
        best, nearest = pick(closer, x, best), torch.where(closer, far, nearest)
        size = torch.where(allowed, size, size / 2)
        current, slope = (x, gradient) if turn == 0 else (pick(allowed, x, current), pick(allowed, gradient, slope))
        if turn < steps:
            x = ball.step(current, slope, size.view(-1, 1, 1, 1))
    return best, 2 - nearest


def wanted_confidence(goal: str, kept: Tensor, labels: Tensor, classes: int, noise: Noise) -> Tensor:
    """The confidence each sample is steered to: 0, 1, or drawn from U(1/C + 0.05, 0.99). (N,)."""
    if goal == "random":
        return noise.uniform((), min(1 / classes + 0.05, 0.99), 0.99)
    up = {"up": torch.ones_like(kept), "down": torch.zeros_like(kept), "max": kept != labels}[goal]
    # Beyond every reachable confidence, so that the target can be approached but not overshot.
    return torch.where(up.bool(), 2.0, -1.0)


def _look(classifier: Classifier, x: Tensor, kept: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the per-sample objective, prediction, and probability of the kept label."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = classifier(x)
        rise = -F.cross_entropy(logits, kept, reduction="none")
        (gradient,) = torch.autograd.grad(torch.where(up, rise, margin(logits, kept)).sum(), x)
    return gradient, logits.detach().argmax(1), rise.detach().exp()
