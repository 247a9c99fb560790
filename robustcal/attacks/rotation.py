"""Rotation about the centre by a given angle: a graded shift, not an attack."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .colour import rotate


@register.attack(kind="shift", returns="last", norm="none", uses_eps=False, version=1)
def rotation(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, degrees: float = 30.0
) -> Tensor:
    """Every image turned by `degrees`, bilinear, black outside."""
    return rotate(images, torch.full_like(images[:, 0, 0, 0], degrees))
