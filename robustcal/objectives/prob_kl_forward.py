"""Ablation of UCAT: cross-entropy plus KL(p(x) || p(xa)) of the softmax probabilities (forward, mass-covering)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from .encoder import Encoder
from .ucat import clean_cosines


@register.objective(not_negative=("weight",))
def prob_kl_forward(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, weight: float = 1.0,
    reference: str = "teacher",
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + weight KL(p_ref(x) || p(xa)), both at the model's own logit scale; `reference` as in `ucat`."""
    return probability_loss(
        student, teacher, clean, adversarial, labels, weight=weight, reference=reference, forward=True
    )


def probability_loss(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, weight: float, reference: str,
    forward: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Cross-entropy and the weighted categorical KL, forward KL(reference || adversarial) or reverse."""
    logits = student.scale * student.cosines(adversarial)
    attacked = F.log_softmax(logits, -1)
    aim = F.log_softmax(student.scale * clean_cosines(student, teacher, clean, reference), -1)
    log_p, log_q = (aim, attacked) if forward else (attacked, aim)
    return {
        "cross_entropy": F.cross_entropy(logits, labels, reduction="none"),
        "probability_kl": weight * (log_p.exp() * (log_p - log_q)).sum(-1),
    }
