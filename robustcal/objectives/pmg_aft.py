"""PMG-AFT: cross-entropy plus KL to the original model and to the clean prediction (Wang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from .encoder import Encoder


def attack_loss(
    student: Encoder, teacher: Encoder, clean: Tensor, labels: Tensor, *, released: bool = False
) -> Callable[[Tensor], Tensor]:
    """Cross-entropy at the scale that is trained: raw cosines in the released code, logits otherwise."""
    scale = 1.0 if released else student.scale
    return lambda images: F.cross_entropy(scale * student.cosines(images), labels, reduction="none")


@register.objective(inner=attack_loss, positive=("batch",), not_negative=("general", "cleanness"))
def pmg_aft(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, general: float = 1.0,
    cleanness: float = 1.0, released: bool = False, batch: int = 256,
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + general KL(p_0(xa) || p(xa)) + cleanness KL(p(x) || p(xa)); nothing of the student is detached.

    Args:
        general: weight of the branch towards the frozen model on the same adversarial image.
        cleanness: weight of the branch towards the student's own clean prediction.
        released: as the authors' code computes it: raw cosines as logits (temperature 1) and KL terms summed, not
            averaged, over the batch. The sum is a factor `batch` here, so that the loss of an image depends neither
            on its neighbours nor on accumulation or the number of processes.
        batch: the batch size of that sum; read only where `released` is true.
    """
    scale = 1.0 if released else student.scale
    share = batch if released else 1.0
    attacked = F.log_softmax(scale * student.cosines(adversarial), -1)
    own = F.log_softmax(scale * student.cosines(clean), -1)
    with torch.no_grad():
        original = F.log_softmax(scale * teacher.cosines(adversarial), -1)
    return {
        "cross_entropy": F.cross_entropy(attacked, labels, reduction="none"),
        "kl_original": general * share * _kl(original, attacked),
        "kl_clean": cleanness * share * _kl(own, attacked),
    }


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
