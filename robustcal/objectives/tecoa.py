"""TeCoA: cross-entropy of the adversarial image against the frozen text embeddings (Mao et al., ICLR 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from .encoder import Encoder


@register.objective
def tecoa(student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """CE(s c(xa), y). No clean image and no reference model. Inner attack: the same cross-entropy."""
    return {"cross_entropy": F.cross_entropy(student(adversarial), labels, reduction="none")}
