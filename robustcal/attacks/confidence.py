"""Confidence attacks: move the confidence and keep the predicted label, so that accuracy cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import make_ball, pick
from .losses import margin
from .pgd import check_choice, check_positive, check_size

GOALS = {"down": "confidence-down", "up": "confidence-up", "max": "miscalibration", "random": "random-confidence"}


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The goal of the threat model, so that the engine checks that the label was kept."""
    check_choice("goal", arguments["goal"], tuple(GOALS))
    return {"goal": GOALS[arguments["goal"]]}


@register.attack(kind="white-box", returns="best", keeps_label=True, meta_of=meta_of, version=1)
def confidence(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, goal: str = "max",
    steps: int = 20, step: float | None = None, norm: str = "linf", start: str = "clean",
) -> Tensor:  # fmt: skip
    """Sign ascent on log p_yhat (up) or on the top-2 logit margin towards the rival (down); yhat = clean prediction.

    The goals are those of the calibration attacks of Obadinma et al. (arXiv 2401.02718). A step that would change
    the prediction, or overshoot a wanted confidence, is refused and that sample's step size halved. Of all accepted
    iterates, the clean image among them, the one nearest to the goal is returned.

    Args:
        goal: "down", lowest confidence; "up", highest; "max", maximum miscalibration: down where the clean
            prediction is right, up where it is wrong; "random", drawn per sample from U(1/C + 0.05, 0.99).
        step: first step size in pixel units; default eps / 4.
        start: "clean", or "uniform" in the ball (used only for samples whose prediction it keeps).
    """
    check_choice("goal", goal, tuple(GOALS))
    check_choice("start", start, ("clean", "uniform"))
    check_positive(steps=steps)
    check_size(step)
    if labels.ndim != 1:
        raise UserError("confidence attacks need one label per image; this data set is multi-label")
    ball = make_ball(images, threat, norm)
    with torch.no_grad():
        logits = classifier(images)
    kept, probability = logits.argmax(1), logits.softmax(1).amax(1)
    wanted = wanted_confidence(goal, kept, labels, logits.shape[1], noise).to(probability.dtype)
    size = torch.full_like(probability, threat.eps / 4 if step is None else step)
    x = best = images
    if start == "uniform":
        trial = ball.random(noise)
        with torch.no_grad():
            same = classifier(trial).argmax(1) == kept
        x = pick(same, trial, x)
    nearest, side = (probability - wanted).abs(), (wanted > probability)
    current = slope = x  # both replaced in the first turn
    for turn in range(steps + 1):
        gradient, prediction, probability = _look(classifier, x, kept, side)
        gap = (probability - wanted).abs()
        allowed = (prediction == kept) & ((wanted > probability) == side)
        closer = (prediction == kept) & (gap < nearest)
        best, nearest = pick(closer, x, best), torch.where(closer, gap, nearest)
        size = torch.where(allowed, size, size / 2)
        current, slope = (x, gradient) if turn == 0 else (pick(allowed, x, current), pick(allowed, gradient, slope))
        if turn < steps:
            x = ball.step(current, slope, size.view(-1, 1, 1, 1))
    return best


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
