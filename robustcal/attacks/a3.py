"""Adaptive Auto Attack, A3: adapted start directions, easy samples first (Liu et al. 2022). Accuracy only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import LinfBall
from .losses import margin
from .pgd import check_positive, gradient_of

#: One row per round: share of the survivors attacked, direction steps, margin steps, restarts.
ROUNDS = (
    (1.0, 0, 25, 1), (1.0, 7, 25, 1), (1.0, 7, 25, 1), (0.7, 10, 30, 1), (0.6, 10, 30, 1), (0.5, 10, 40, 1),
    (0.4, 10, 40, 2), (0.3, 12, 50, 2), (0.2, 12, 50, 3), (0.1, 12, 60, 4), (0.1, 15, 60, 4), (0.065, 15, 60, 5),
    (0.03, 15, 60, 6),
)  # fmt: skip
FEWEST = 0.01  #: share of the batch that a round attacks at least (theirs: 100 of 10 000 images)
RIVALS = 9  #: most likely wrong classes among which the adapted direction picks one


@register.attack(
    kind="white-box", returns="success-else-clean", batch_dependent=True, accuracy_only=True, version=2
)  # fmt: skip
def a3(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, budget: int = 100,
    rounds: int = 13,
) -> Tensor:  # fmt: skip
    """Rounds of short margin attacks from adapted starts on the samples that still stand.

    A run first ascends sum_k w_k l_k with full steps eps sign(g), w ~ U(-1, 1)^C; from the third round on the signs
    of w at the label and at one likely wrong class follow those of successful runs. Then it ascends the margin with
    a step decayed by a cosine from eps to eps / 1000 (their section 3). From the fourth round on only the share of
    the survivors with the largest margin is attacked. Shares and direction steps are those of the published code;
    survivors are ranked, and the budget shared, within the batch.

    Args:
        budget: input gradients per image, averaged over the batch.
        rounds: at most 13.
    """
    check_positive(budget=budget, rounds=rounds)
    if rounds > len(ROUNDS):
        raise UserError(f"rounds={rounds} must be at most {len(ROUNDS)}")
    if labels.ndim != 1:
        raise UserError("a3 needs one label per image; for multi-label data use pgd or cw")
    ball, result, left = LinfBall(images.detach(), threat), images.clone(), budget * len(images)
    with torch.no_grad():
        logits = classifier(images)
    score = margin(logits, labels)
    rivals = logits.scatter(1, labels[:, None], -torch.inf).topk(min(RIVALS, logits.shape[1] - 1)).indices
    signs: list[Tensor] = []  # of successful runs: (n, 2), at the label and at the rival
    for turn, (share, turns, steps, restarts) in enumerate(ROUNDS[:rounds]):
        for _ in range(restarts):
            alive = torch.nonzero(score <= 0).flatten()
            if len(alive) == 0 or left <= 0:
                return result
            fewest = math.ceil(FEWEST * len(images))
            rows = alive[score[alive].argsort(descending=True)[: max(math.ceil(share * len(alive)), fewest)]]
            streams, part = noise.select(rows), ball.select(rows)
            weights, pair = draw_directions(streams, labels[rows], rivals[rows], logits.shape[1], signs, turn >= 2)
            start, spent = part.random(streams), turns * len(rows)
            for _ in range(turns):
                slope, _ = gradient_of(classifier, start, weights, lambda logits, w: (w * logits).sum(1))
                start = part.step(start, slope, threat.eps)
            found, score[rows], used = ascend_margin(classifier, part, start, labels[rows], steps)
            won = score[rows] > 0
            result[rows[won]] = found[won]
            signs.append(pair[won])
            left -= spent + used
    return result


def draw_directions(
    noise: Noise, labels: Tensor, rivals: Tensor, classes: int, signs: list[Tensor], adapted: bool
) -> tuple[Tensor, Tensor]:
    """Weights w (N, C) of the logits, and the signs of w at the label and at one rival (N, 2)."""
    weights = noise.uniform((classes,), -1, 1)
    choice = (noise.uniform(()) * rivals.shape[1]).long()
    pair = torch.stack([labels, rivals.gather(1, choice[:, None])[:, 0]], dim=1)
    draw = noise.uniform((2,))
    seen = torch.cat(signs) if signs else draw[:0]
    if adapted and len(seen):
        positive = draw < (seen > 0).to(draw.dtype).mean(0)
        size = weights.gather(1, pair).abs()
        weights = weights.scatter(1, pair, torch.where(positive, size, -size))
    return weights, weights.gather(1, pair).sign()


def ascend_margin(
    classifier: Classifier, ball: LinfBall, x: Tensor, labels: Tensor, steps: int
) -> tuple[Tensor, Tensor, int]:
    """Margin ascent with a cosine step; misclassified samples leave. (images, margins, input gradients spent)."""
    x, spent, low = x.clone(), 0, ball.eps * (0.1 if steps <= 10 else 0.001)
    active, last = torch.arange(len(x), device=x.device), x.new_full((len(x),), -torch.inf)
    for step in range(steps + 1):
        if step == steps:
            with torch.no_grad():
                last[active] = margin(classifier(x[active]), labels[active])
            break
        gradient, last[active] = gradient_of(classifier, x[active], labels[active], margin)
        spent += len(active)
        stands = last[active] <= 0
        active, gradient = active[stands], gradient[stands]
        if len(active) == 0:
            break
        size = low + (ball.eps - low) * (1 + math.cos(math.pi * step / (steps + 1))) / 2
        x[active] = ball.select(active).step(x[active], gradient, size)
    return x, last, spent
