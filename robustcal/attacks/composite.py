"""Composite attack: hue, saturation, rotation, brightness, contrast and Linf noise together (Hsiung et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from . import colour
from .balls import Scored, keep_better
from .losses import Loss, find_loss, margin
from .pgd import FIRST_SUCCESS, best_of, check_choice, check_positive, default_step

#: A change of images (N, 3, H, W) by amounts (N,), its neutral amount, its largest deviation.
Change = tuple[Callable[[Tensor, Tensor], Tensor], float, float]
#: In the order they are applied, with their default ranges.
CHANGES: dict[str, Change] = {
    "hue": (colour.shift_hue, 0.0, math.pi),
    "saturation": (colour.scale_saturation, 1.0, 0.3),
    "rotation": (colour.rotate, 0.0, 10.0),
    "brightness": (colour.shift_brightness, 0.0, 0.2),
    "contrast": (colour.scale_contrast, 1.0, 0.3),
}


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """With colour or rotation there is no ball to project onto; with Linf noise alone there is."""
    return {
        "norm": "linf" if parse_components(arguments["components"]) == ["linf"] else "composite",
        "accuracy_only": arguments["return_"] == FIRST_SUCCESS,
    }


@register.attack(kind="white-box", meta_of=meta_of, version=1)
def composite(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, components: str = "all",
    steps: int = 10, loss: str = "ce", restarts: int = 1, return_: str = "best",
) -> Tensor:  # fmt: skip
    """Sign ascent on the amounts of all changes and on the Linf noise at once; the order of application is fixed.

    One gradient serves all components, where the authors' scheme takes them in turn. `threat.eps` bounds the Linf
    noise only: the result is far outside that ball, so projection is onto the range alone.

    Args:
        components: "all", or some of hue, saturation, rotation, brightness, contrast, linf, joined by "+".
        steps: each component's step is 2.5 of its half-range / steps.
        return_: "best", the highest-loss iterate; "last"; "success-else-last", the first misclassified one, the start
            among them, or the last (of the first restart), where the authors' evaluation stops.
    """
    check_choice("return", return_, ("best", "last", FIRST_SUCCESS))
    check_positive(steps=steps, restarts=restarts)
    chosen, objective = parse_components(components), find_loss(loss)
    changes = [CHANGES[name] for name in CHANGES if name in chosen]
    eps = threat.eps if "linf" in chosen else 0.0

    def run() -> Scored:
        amounts = noise.uniform((len(changes),), -1, 1)
        delta = noise.uniform(images.shape[1:], -eps, eps)
        return ascend_all(classifier, images, labels, objective, changes, amounts, delta, eps, threat, steps, return_)

    return best_of(run() for _ in range(restarts))


def ascend_all(
    classifier: Classifier, images: Tensor, labels: Tensor, loss: Loss, changes: list[Change], amounts: Tensor, delta: Tensor,
    eps: float, threat: Threat, steps: int, return_: str,
) -> Scored:  # fmt: skip
    """One run from `amounts` (N, k) in [-1, 1] and `delta`: (images, their losses; of first successes, 1 or 0)."""
    best, stands = None, torch.ones(len(images), dtype=torch.bool, device=images.device)
    for step in range(steps + 1):
        amounts, delta = amounts.detach().requires_grad_(True), delta.detach().requires_grad_(True)
        with torch.enable_grad():
            x = apply_changes(images, changes, amounts) + delta
            x = x.clamp(threat.low, threat.high)
            logits = classifier(x)
            losses = loss(logits, labels)
            total = losses.sum()
        if return_ == FIRST_SUCCESS:
            stands &= margin(logits.detach(), labels) <= 0
            losses = (~stands).to(x.dtype)
        if return_ == "best" or step == steps:
            best = keep_better(best, x.detach(), losses.detach())
        if step < steps:
            up, slope = torch.autograd.grad(total, (amounts, delta), allow_unused=True, materialize_grads=True)
            moves = stands.to(x.dtype)
            amounts = (amounts + default_step(1.0, steps) * up.sign() * moves[:, None]).clamp(-1, 1)
            delta = (delta + default_step(eps, steps) * slope.sign() * moves.view(-1, 1, 1, 1)).clamp(-eps, eps)
    assert best is not None  # the last iterate is always kept
    return best


def apply_changes(images: Tensor, changes: Sequence[Change], amounts: Tensor) -> Tensor:
    """The changes in order; an amount of -1 .. 1 spans each one's range."""
    for index, (change, neutral, reach) in enumerate(changes):
        images = change(images, neutral + reach * amounts[:, index])
    return images


def parse_components(text: str) -> list[str]:
    """``hue+linf`` -> ["hue", "linf"].

    Raises:
        UserError: an unknown component.
    """
    known = [*CHANGES, "linf"]
    chosen = known if text == "all" else text.split("+")
    for name in chosen:
        if name not in known:
            raise UserError(f"composite has no component '{name}'; there are: {', '.join(known)}, joined by +")
    return list(chosen)
