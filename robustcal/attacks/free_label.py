"""Goals of confidence under which the label may change: what a run climbs, and the iterate it keeps.

A run of APGD climbs the first of two numbers per sample and keeps the iterate with the largest second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise
from ..types import Classifier
from .apgd import Score, climb
from .balls import L2Ball, LinfBall, Scored
from .losses import margin

#: Logits (N, C) -> what the attacker wants to be large, (N,).
Value = Callable[[Tensor], Tensor]


def free_runs(
    goal: str, classifier: Classifier, ball: LinfBall | L2Ball, labels: Tensor, noise: Noise, start: str, steps: int,
    restarts: int, targets: int,
) -> Iterator[Scored]:  # fmt: skip
    """Every run of a goal, the clean images first: images and their values (N,)."""
    with torch.no_grad():
        clean = classifier(ball.clean)
    value, scores = scores_of(goal, clean, labels, targets)
    yield ball.clean, value(clean)
    for turn in range(restarts):
        for score in scores:
            first = ball.clean if turn == 0 and start == "clean" else ball.random(noise)
            state = climb(classifier, ball, first, labels, score, steps)
            yield state.images, state.value


def scores_of(goal: str, clean: Tensor, labels: Tensor, targets: int) -> tuple[Value, list[Score]]:
    """The value of a goal, and a score for each run.

    Args:
        clean: logits of the clean images (N, C); the likeliest classes are targets. `gap` leaves out the label.
        targets: how many classes, at most all of them.
    """
    if goal == "unknown":
        return doubt, [lambda logits: (entropy(logits), doubt(logits)), lambda logits: (lead(logits), doubt(logits))]
    value = (lambda logits: gap(logits, labels)) if goal == "gap" else (lambda logits: -doubt(logits))
    likely = clean.scatter(1, labels[:, None], -torch.inf) if goal == "gap" else clean
    count = min(targets, clean.shape[1] - (goal == "gap"))
    return value, [towards(target, value) for target in likely.topk(count, dim=1).indices.t()]


def towards(target: Tensor, value: Value) -> Score:
    """Climb the log-probability of a class (N,), keep the largest value."""
    return lambda logits: (-F.cross_entropy(logits, target, reduction="none"), value(logits))


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """|confidence - correctness|: the confidence where the prediction is wrong, 1 minus it where it is right. (N,)."""
    confidence, prediction = logits.softmax(1).max(1)
    return torch.where(prediction == labels, 1 - confidence, confidence)


def doubt(logits: Tensor) -> Tensor:
    """Minus the largest log-probability: (N,), from 0 to ln C."""
    return -logits.log_softmax(1).amax(1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax, nats: (N,)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def lead(logits: Tensor) -> Tensor:
    """Second largest logit minus the largest: (N,), at most 0; it has a slope where the softmax is saturated."""
    return margin(logits, logits.detach().argmax(1))
