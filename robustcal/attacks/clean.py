"""No attack: the clean images."""

from __future__ import annotations

from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat


@register.attack(kind="clean", returns="last", uses_eps=False, version=1)
def clean(classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """The images as they came; what every other cell is compared with."""
    return images
