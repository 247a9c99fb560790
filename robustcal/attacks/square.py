"""Square attack: random square windows, accepted if the score worsens; no gradients (Andriushchenko et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import LinfBall, pick
from .losses import Loss, find_loss, margin
from .pgd import check_choice, check_positive

#: The window share p is p_init divided by 2 after each of these queries (their section 4.1, for 10,000 queries).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
CHUNK = 50  #: queries whose random numbers are drawn together


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The return rule that voids calibration."""
    return {"accuracy_only": arguments["return_"] == "success-else-clean"}


@register.attack(kind="black-box", meta_of=meta_of, version=1)
def square(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, queries: int = 5000,
    p_init: float = 0.8, rescale: bool = False, loss: str = "margin", restarts: int = 1, return_: str = "best",
) -> Tensor:  # fmt: skip
    """From vertical stripes of +-eps, each query adds +-2 eps per channel on a random square, projected.

    Args:
        queries: forward passes per sample and restart, the first image included.
        p_init: share of the image the first windows cover.
        rescale: stretch the window schedule, made for 10,000 queries, to `queries`.
        loss: margin | ce; a query is kept if the loss rises (with success-else-clean, also if it fools).
        return_: "best", every sample is attacked to the end and the highest-loss image returned;
            "success-else-clean", a sample stops at its first misclassification, clean image where there is none.
    """
    check_choice("return", return_, ("best", "success-else-clean"))
    check_positive(queries=queries, restarts=restarts)
    if not 0 < p_init <= 1:
        raise UserError(f"p_init={p_init} is not a share of the image; it is above 0 and at most 1")
    ball, stop = LinfBall(images.detach(), threat), return_ == "success-else-clean"
    result, value = images.clone(), torch.full_like(images[:, 0, 0, 0], -torch.inf)
    active = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        if stop:
            active = active[margin(classifier(images), labels) <= 0]
        for _ in range(restarts):
            if len(active) == 0:
                break
            x, worst, fooled = search(
                classifier, ball.select(active), labels[active], noise.select(active), find_loss(loss), queries,
                p_init, 10_000 / queries if rescale else 1.0, stop,
            )  # fmt: skip
            better = fooled if stop else worst > value[active]
            result[active] = pick(better, x, result[active])
            value[active] = torch.where(better, worst, value[active])
            if stop:
                active = active[~fooled]
    return result


def search(
    classifier: Classifier, ball: LinfBall, labels: Tensor, noise: Noise, loss: Loss, queries: int, p_init: float,
    pace: float, stop: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One restart: (images, losses, misclassified). With `stop`, fooled samples leave the batch between chunks."""
    count, channels, _, width = ball.clean.shape
    signs = 2.0 * noise.integers((channels, 1, width), 2) - 1
    x = ball.project(ball.clean + ball.eps * signs)
    logits = classifier(x)
    worst, fooled = loss(logits, labels), margin(logits, labels) > 0
    for first in range(1, queries, CHUNK):
        rows = torch.nonzero(~fooled).flatten() if stop else torch.arange(count, device=x.device)
        if len(rows) == 0:
            break
        part, own, streams = ball.select(rows), labels[rows], noise.select(rows)
        corner = streams.uniform((CHUNK, 2))
        signs = 2.0 * streams.integers((CHUNK, channels, 1, 1), 2) - 1
        now, high, done = x[rows], worst[rows], fooled[rows]
        for query in range(first, min(first + CHUNK, queries)):
            window = _window(part.clean, corner[:, query - first], share(p_init, int((query - 1) * pace)))
            trial = part.project(now + 2 * ball.eps * signs[:, query - first] * window)
            logits = classifier(trial)
            score, wrong = loss(logits, own), margin(logits, own) > 0
            take = ~done & (wrong | (score > high)) if stop else score > high
            now = pick(take, trial, now)
            high, done = torch.where(take, score, high), torch.where(take, wrong, done)
        x[rows], worst[rows], fooled[rows] = now, high, done
    return x, worst, fooled


def share(p_init: float, query: int) -> float:
    """Share of the image that the window of this query covers."""
    return p_init * 0.5 ** sum(query > halving for halving in HALVINGS)


def _window(images: Tensor, corner: Tensor, p: float) -> Tensor:
    """1 inside each sample's square of area p H W, else 0: (N, 1, H, W). `corner` (N, 2) in [0, 1)."""
    height, width = images.shape[-2:]
    side = min(max(round((p * height * width) ** 0.5), 1), height, width)
    top = (corner[:, 0] * (height - side + 1)).long().view(-1, 1, 1, 1)
    left = (corner[:, 1] * (width - side + 1)).long().view(-1, 1, 1, 1)
    row = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    column = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    mask: Tensor = inside.to(images.dtype)
    return mask
