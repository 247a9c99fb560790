"""UCAT: cross-entropy plus the reverse Dirichlet KL to the original model's clean evidence (arXiv 2512.12997)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dirichlet
from ..registry import register
from ..types import UserError
from .encoder import Encoder

#: lambda beta_0, the factor in front of the categorical KL, at the published setting: weight 1e5, tau 0.07 and the
#: evidence beta_0 = 7e9 that CLIP ViT-B/32 gives a typical image among the 200 classes of TinyImageNet.
PUBLISHED_STRENGTH = 270.0
PUBLISHED_WEIGHT = 1e5


@register.objective(positive=("tau",), not_negative=("weight",))
def ucat(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, tau: float = 0.07,
    weight: float = PUBLISHED_WEIGHT, evidence: str = "published", reference: str = "teacher",
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + lambda KL(Dir(alpha(xa)) || Dir(alpha_ref(x))), alpha = exp((cosine + 1) / tau).

    Args:
        tau: temperature of the evidence.
        weight: numerator of lambda.
        evidence: what lambda divides `weight` by, see `strength`: "published", "matched" or a number.
        reference: whose clean evidence is approached: "teacher" (the frozen original model, as released) or
            "student" (the model in training, as the paper's diagram reads; gradient flows through it).
    """
    return evidence_loss(
        student, teacher, clean, adversarial, labels, tau=tau, weight=weight, evidence=evidence, reference=reference,
        forward=False,
    )  # fmt: skip


def evidence_loss(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, tau: float,
    weight: float, evidence: str, reference: str, forward: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Cross-entropy and the weighted Dirichlet KL, reverse KL(adversarial || reference) or forward."""
    cosines = student.cosines(adversarial)
    attacked = dirichlet.log_concentration(cosines, tau)
    aim = dirichlet.log_concentration(clean_cosines(student, teacher, clean, reference), tau)
    divergence = dirichlet.kl_divergence(aim, attacked) if forward else dirichlet.kl_divergence(attacked, aim)
    return {
        "cross_entropy": F.cross_entropy(student.scale * cosines, labels, reduction="none"),
        "dirichlet_kl": strength(aim.detach(), tau, weight, evidence) * divergence,
    }


def clean_cosines(student: Encoder, teacher: Encoder, clean: Tensor, reference: str) -> Tensor:
    """Cosines of the clean image by the frozen teacher (no gradient) or by the student (with gradient)."""
    if reference == "student":
        return student.cosines(clean)
    if reference != "teacher":
        raise UserError(f"reference '{reference}' is unknown; it is teacher or student")
    with torch.no_grad():
        return teacher.cosines(clean)


def strength(log_beta: Tensor, tau: float, weight: float, evidence: str) -> Tensor | float:
    """lambda: a number, or one per image (N,).

    - "published": weight / exp(softplus(2 / tau)), which normalises the largest concentration there can be.
    - "matched": weight / 1e5 * 270 / beta_0(x), so that every image, class count and tau gets the factor
      lambda beta_0 = 270 that a typical image has in the published setting.
    - a number B: the same with B in place of beta_0(x): one lambda for all, from a mean evidence measured beforehand.
    """
    if evidence == "published":
        return weight * math.exp(-2 / tau - math.log1p(math.exp(-2 / tau)))
    matched = weight / PUBLISHED_WEIGHT * PUBLISHED_STRENGTH
    if evidence == "matched":
        return matched * torch.exp(-dirichlet.log_alpha0(log_beta))
    try:
        if (mean := float(evidence)) > 0:
            return matched / mean
    except ValueError:
        pass
    raise UserError(f"evidence '{evidence}' is unknown; it is published, matched or a number greater than 0")
