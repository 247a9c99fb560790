"""Straight-through attack on a test-time defence: its logits forwards, the model behind it backwards (Athalye et al. 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat
from .eot import mean_ascent


@register.attack(kind="white-box", version=1)
def bpda(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, draws: int = 8, steps: int = 10,
    step: float | None = None, loss: str = "ce", norm: str = "linf", momentum: float = 0.0, return_: str = "best",
) -> Tensor:  # fmt: skip
    """PGD on l(x) = f(x) + stop(d(x) - f(x)): d the defended logits, f those of the model behind the defence.

    Backward pass differentiable approximation: what a defence does to the image is taken for the identity when the gradient
    passes. For a defence with steps that have no useful derivative, or one that hides it. A classifier without a defence is
    attacked by PGD.

    Args:
        draws: draws of the defence's randomness averaged at every step, as in ``eot``.
        steps, step, loss, norm, momentum, return_: as in ``pgd``.
    """
    through = StraightThrough(classifier)
    return mean_ascent(through, images, labels, threat, noise, draws, steps, step, loss, norm, momentum, return_)


class StraightThrough(nn.Module):
    """Images (N, 3, H, W) -> the defended logits (N, C), with the gradient of the undefended ones."""

    def __init__(self, classifier: Any):
        super().__init__()
        self.classifier, self.behind = classifier, getattr(classifier, "deployed", None)
        self.num_classes, self.classnames = classifier.num_classes, getattr(classifier, "classnames", ())
        self.fingerprint, self.randomised = getattr(classifier, "fingerprint", ""), getattr(classifier, "randomised", False)
        self.drawing = getattr(classifier, "drawing", None)

    def forward(self, images: Tensor) -> Tensor:
        if self.behind is None:
            plain: Tensor = self.classifier(images)
            return plain
        defended = self.classifier(images.detach())
        undefended = self.behind(images)
        logits: Tensor = undefended + (defended - undefended).detach()
        return logits
