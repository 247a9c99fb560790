"""Composite attack: hue, saturation, rotation, brightness, contrast and Linf noise together (Hsiung et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from . import colour
from .balls import keep_better
from .losses import Loss, find_loss
from .pgd import check_choice, check_positive, default_step

#: In the order they are applied: the change, its neutral amount, its largest deviation (their default ranges).
CHANGES = {
    "hue": (colour.shift_hue, 0.0, math.pi),
    "saturation": (colour.scale_saturation, 1.0, 0.3),
    "rotation": (colour.rotate, 0.0, 10.0),
    "brightness": (colour.shift_brightness, 0.0, 0.2),
    "contrast": (colour.scale_contrast, 1.0, 0.3),
}


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """With colour or rotation there is no ball to project onto; with Linf noise alone there is."""
    return {"norm": "linf" if parse_components(arguments["components"]) == ["linf"] else "composite"}


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
        return_: "best", the highest-loss iterate; "last".
    """
    check_choice("return", return_, ("best", "last"))
    check_positive(steps=steps, restarts=restarts)
    chosen, objective = parse_components(components), find_loss(loss)
    changes = [CHANGES[name] for name in CHANGES if name in chosen]
    eps = threat.eps if "linf" in chosen else 0.0
    best, score = None, return_ == "best" or restarts > 1
    for _ in range(restarts):
        amounts = noise.uniform((len(changes),), -1, 1)
        delta = noise.uniform(images.shape[1:], -eps, eps)
        found = ascend_all(
            classifier, images, labels, objective, changes, amounts, delta, eps, threat, steps, return_
        )
        best = keep_better(best, *found) if score else found
    return best[0]


def ascend_all(
    classifier: Classifier, images: Tensor, labels: Tensor, loss: Loss, changes: list, amounts: Tensor, delta: Tensor,
    eps: float, threat: Threat, steps: int, return_: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One run from `amounts` (N, k) in [-1, 1] and `delta`: (images, their losses)."""
    best = None
    for step in range(steps + 1):
        amounts, delta = amounts.detach().requires_grad_(True), delta.detach().requires_grad_(True)
        with torch.enable_grad():
            x = apply_changes(images, changes, amounts) + delta
            x = x.clamp(threat.low, threat.high)
            losses = loss(classifier(x), labels)
            total = losses.sum()
        if return_ == "best" or step == steps:
            best = keep_better(best, x.detach(), losses.detach())
        if step < steps:
            up, slope = torch.autograd.grad(total, (amounts, delta), allow_unused=True, materialize_grads=True)
            amounts = (amounts + default_step(1.0, steps) * up.sign()).clamp(-1, 1)
            delta = (delta + default_step(eps, steps) * slope.sign()).clamp(-eps, eps)
    return best


def apply_changes(images: Tensor, changes: list, amounts: Tensor) -> Tensor:
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
