"""PGD on the same towers under other class prompts: an attacker who knows the weights and not the words."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .pgd import pgd


@register.attack(kind="transfer", version=1)
def reprompted(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, template: str, steps: int = 10,
    step: float | None = None, loss: str = "ce", norm: str = "linf", restarts: int = 1, momentum: float = 0.0,
    return_: str = "best",
) -> Tensor:  # fmt: skip
    """PGD against the classifier that the model would be under `template`; the deployed prompts only read its images.

    With the deployed template it is ``pgd``; so it is on a classifier that has no prompts.

    Args:
        template: text with {} for the class name, such as ``a photo of a {}``; several are joined by ``|`` and averaged.
        steps, step, loss, norm, restarts, momentum: as in ``pgd``.
        return_: "best" by the loss under `template`, or "last".

    Raises:
        UserError: a text without {}; a classifier behind a defence.
    """
    texts = tuple(text.strip() for text in template.split("|"))
    for text in texts:
        if "{}" not in text:
            raise UserError(f"template '{text}' has no {{}} for the class name; write it like 'a photo of a {{}}'")
    if hasattr(classifier, "deployed"):
        raise UserError("reprompted needs a CLIP model with nothing around it; this one is behind a defence")
    other: Any = Reprompted(classifier, texts)
    return pgd(
        other, images, labels, threat, noise, steps=steps, step=step, loss=loss, norm=norm, restarts=restarts,
        momentum=momentum, return_=return_,
    )  # fmt: skip


class Reprompted(nn.Module):
    """A CLIP classifier under other templates: images (N, 3, H, W) -> logits (N, C); passes are those of its image tower."""

    def __init__(self, classifier: Any, templates: tuple[str, ...]):
        super().__init__()
        self.classifier, self.templates = classifier, templates
        self.classnames, self.num_classes = classifier.classnames, classifier.num_classes

    def forward(self, images: Tensor) -> Tensor:
        if not hasattr(self.classifier, "head_for"):
            plain: Tensor = self.classifier(images)
            return plain
        head: Tensor = self.classifier.head_for(self.templates)
        cosines = F.normalize(self.classifier.embed(images), dim=-1) @ head.t()
        logits: Tensor = cosines * self.classifier.scale + self.classifier.bias
        return logits
