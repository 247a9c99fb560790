"""AGFT: cross-entropy with the original model's soft clean prediction, without labels (arXiv 2603.29410)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from .encoder import Encoder


def soft_cross_entropy(
    student: Encoder, teacher: Encoder, clean: Tensor, labels: Tensor, *, scale: float = 180.0, ratio: float = 0.4
) -> Callable[[Tensor], Tensor]:
    """What the inner attack maximises, per image (N,): the same soft cross-entropy that is trained."""
    with torch.no_grad():
        target = (ratio * scale * teacher.cosines(clean)).softmax(-1)
    return lambda images: F.cross_entropy(scale * student.cosines(images), target, reduction="none")


@register.objective(inner=soft_cross_entropy, positive=("scale", "ratio"))
def agft(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, scale: float = 180.0,
    ratio: float = 0.4,
) -> dict[str, Tensor]:  # fmt: skip
    """- sum_k q_k ln softmax_k(scale c(xa)), q = softmax(ratio scale c_0(x)). `labels` are not read.

    Args:
        scale: logit scale in training only; the model is deployed at its own.
        ratio: the teacher's scale as a share of `scale`.
    """
    loss = soft_cross_entropy(student, teacher, clean, labels, scale=scale, ratio=ratio)
    return {"soft_cross_entropy": loss(adversarial)}
