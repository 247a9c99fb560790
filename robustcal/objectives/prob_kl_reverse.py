"""Ablation of UCAT: cross-entropy plus KL(p(xa) || p(x)) of the softmax probabilities (reverse, mode-seeking)."""

from __future__ import annotations

from torch import Tensor

from ..registry import register
from .encoder import Encoder
from .prob_kl_forward import probability_loss


@register.objective(not_negative=("weight",))
def prob_kl_reverse(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, weight: float = 1.0,
    reference: str = "teacher",
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + weight KL(p(xa) || p_ref(x)), both at the model's own logit scale; `reference` as in `ucat`."""
    return probability_loss(
        student, teacher, clean, adversarial, labels, weight=weight, reference=reference, forward=False
    )
