"""Ablation of UCAT: cross-entropy plus the forward Dirichlet KL(Dir(x) || Dir(xa)); the reverse one is ucat."""

from __future__ import annotations

from torch import Tensor

from ..registry import register
from .encoder import Encoder
from .ucat import PUBLISHED_WEIGHT, evidence_loss


@register.objective(positive=("tau",), not_negative=("weight",))
def dirichlet_kl_forward(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, tau: float = 0.07,
    weight: float = PUBLISHED_WEIGHT, evidence: str = "published", reference: str = "teacher",
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + lambda KL(Dir(alpha_ref(x)) || Dir(alpha(xa))). Parameters: see `ucat`.

    Its leading term is lambda alpha_0(xa) KL_cat(p(xa) || p_ref(x)): the weight can be trained down with the cosines.
    """
    return evidence_loss(
        student, teacher, clean, adversarial, labels, tau=tau, weight=weight, evidence=evidence, reference=reference,
        forward=True,
    )  # fmt: skip
