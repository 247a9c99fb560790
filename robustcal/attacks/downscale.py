"""Fewer pixels: averaged to a smaller side and enlarged again, a graded shift and not an attack."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError


@register.attack(kind="shift", returns="last", norm="none", uses_eps=False, version=1)
def downscale(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, factor: float = 2.0
) -> Tensor:
    """Bilinear with antialiasing to 1 / `factor` of the side, rounded, and bilinear back to all of it."""
    if not factor >= 1:
        raise UserError(f"factor={factor} must be 1 or more")
    side = images.shape[-1]
    small = F.interpolate(images, (max(round(side / factor), 1),) * 2, mode="bilinear", antialias=True)
    return F.interpolate(small, (side, side), mode="bilinear")
