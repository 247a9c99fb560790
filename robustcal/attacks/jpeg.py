"""JPEG at a given quality: a graded shift, not an attack."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .degradations import jpeg_compression


@register.attack(kind="shift", returns="last", norm="none", uses_eps=False, version=1)
def jpeg(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, quality: int = 50
) -> Tensor:
    """Written and read by Pillow at `quality`, 1 to 95."""
    if not 1 <= quality <= 95:
        raise UserError(f"quality={quality} is not between 1 and 95")
    pixels = images.detach().cpu().double().permute(0, 2, 3, 1).numpy()
    found = [jpeg_compression(image, quality, stream) for image, stream in zip(pixels, noise.streams, strict=True)]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(images).contiguous()
