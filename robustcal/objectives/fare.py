"""FARE: keep the adversarial embedding near the original clean one, without labels (Schlarmann et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..registry import register
from .encoder import Encoder


def drift(student: Encoder, teacher: Encoder, clean: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """What the inner attack maximises: || phi(x') - phi_0(x) ||_2^2 of unnormalised embeddings, per image (N,)."""
    with torch.no_grad():
        target = teacher.embed(clean)
        target = target.to(torch.promote_types(target.dtype, torch.float32))  # so that the difference is not in bf16
    return lambda images: (student.embed(images) - target).pow(2).sum(-1)


@register.objective(inner=drift)
def fare(student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """|| phi(xa) - phi_0(x) ||_2^2, summed over dimensions. `labels` are not read."""
    return {"embedding": drift(student, teacher, clean, labels)(adversarial)}
