"""One attack at several radii."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Iterable

from torch import Tensor

from ..noise import Noise
from ..types import Classifier, Threat


def radii(
    attack: Callable[..., Tensor], classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, seed: int,
    ids: Iterable[str], eps: Iterable[float],
) -> dict[float, Tensor]:  # fmt: skip
    """Adversarial images at each radius: {eps: (N, 3, H, W)}.

    Every radius starts from the same per-sample random numbers, so that radii differ by the radius alone.
    """
    ids = tuple(ids)
    return {
        radius: attack(classifier, images, labels, replace(threat, eps=radius), Noise(seed, ids, images.device))
        for radius in eps
    }
