"""Common corruptions of ImageNet-C: a shift that no adversary chose, at severities 1 to 5."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Spec, Threat, UserError
from . import blurs, degradations, weather
from .severities import EXTRA, MAIN, parameters

#: Image (H, W, 3) float64 in [0, 1], parameter, stream of the sample -> image, which may leave the range.
Change = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]
HOME = {
    **dict.fromkeys(("defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "gaussian-blur"), blurs),
    **dict.fromkeys(("snow", "frost", "fog", "spatter"), weather),
}
CORRUPTIONS: dict[str, Change] = {
    name: getattr(HOME.get(name, degradations), name.replace("-", "_")) for name in (*MAIN, *EXTRA)
}

#: Variants that stand for several in a sweep.
GROUPS = {"all": MAIN, "extra": EXTRA}


def stands_for(given: Spec) -> list[str] | None:
    """The specs of ``corruption:all``, the fifteen, or ``corruption:extra``, the four: at severities 1 to 5, or the given one."""
    if given.variant not in GROUPS or set(given.params) - {"severity"}:
        return None
    severities = [given.params["severity"]] if given.params else range(1, 6)
    return [f"corruption:{name}:severity={severity}" for name in GROUPS[given.variant] for severity in severities]


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing more is declared; a corruption or severity that does not exist is told while the sweep is planned."""
    find(arguments["variant"])
    if not 1 <= arguments["severity"] <= 5:
        raise UserError(f"severity={arguments['severity']} is not published; severities are 1 to 5")
    return {}


@register.attack(kind="shift", returns="last", norm="none", uses_eps=False, meta_of=meta_of, stands_for=stands_for, version=1)
def corruption(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, variant: str | None = None,
    severity: int = 3,
) -> Tensor:  # fmt: skip
    """The image as one of nineteen corruptions leaves it (Hendrycks and Dietterich 2019); the model is never asked.

    Parameters are the published ones of ImageNet-C, Tiny-ImageNet-C or CIFAR-10-C, whichever size is nearest by ratio. In a
    sweep ``corruption:all`` stands for the fifteen of the paper at all severities, ``corruption:extra`` for its four others.

    Args:
        severity: 1 to 5.
    """
    change, pixels = find(variant), images.detach().cpu().double().permute(0, 2, 3, 1).numpy()
    amount = parameters(str(variant), severity, images.shape[-1])
    found = [change(image, amount, stream).clip(0, 1) for image, stream in zip(pixels, noise.streams, strict=True)]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(images).contiguous()


def find(name: str | None) -> Change:
    """The corruption of this name.

    Raises:
        UserError: none, or unknown, with the nearest one.
    """
    if name in GROUPS:
        several = ", ".join(GROUPS[name])
        raise UserError(f"'corruption:{name}' stands for several in a sweep; name one here: {several}")
    if name not in CORRUPTIONS:
        near = difflib.get_close_matches(str(name), CORRUPTIONS, n=1, cutoff=0.5)
        hint = f"did you mean 'corruption:{near[0]}'?" if near else f"there are: {', '.join(CORRUPTIONS)}"
        fault = f"there is no corruption '{name}'" if name else "'corruption' needs a name, like corruption:fog:severity=3"
        raise UserError(f"{fault}; {hint}")
    return CORRUPTIONS[name]
