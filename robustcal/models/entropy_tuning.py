"""Entropy minimised at test time over views weighed by their reliability, in the style of R-TPT (Sheng et al. 2025)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..registry import register
from . import defended
from .defended import Defended, DefendedModel, clip_model
from .views import random_crops


def identity(*, model: str, **settings: Any) -> str:
    """Identity of the model below and of every setting."""
    check(**settings)
    return defended.identity("entropy-tuning", model, settings)


@register.model(identity=identity, parts=("model",))
def entropy_tuning(
    *, model: str, views: int = 63, keep: float = 0.1, lr: float = 0.005, neighbours: int = 20, temperature: float = 0.01,
    crop: float = 0.08, seed: int = 0,
) -> DefendedModel:  # fmt: skip
    """Class embeddings of each image tuned to lower the entropy of its surest views; logits of all views, weighed.

    R-TPT's loss (the mean of the views' own entropies, not the entropy of their mean), its choice of views and its weights:
    softmax(s / temperature), s the mean cosine of a view with its nearest other views. What is tuned is not the prompt's
    context but the class embeddings themselves, one copy per image, as in test-time prototype shifting: one step of Adam from
    zero, which is lr times the sign of the gradient.

    Args:
        model: spec of the deployed model.
        views: random crops besides the image itself.
        keep: share of the views, those of lowest entropy, whose entropy is minimised; at least one.
        lr: size of the step; 0 leaves the class embeddings as they are.
        neighbours: views that a view's reliability is the mean cosine with.
        temperature: of the weights.
        crop: smallest share of the image's area in a crop.
        seed: of the crops.
    """
    settings: dict[str, Any] = {
        "views": views, "keep": keep, "lr": lr, "neighbours": neighbours, "temperature": temperature, "crop": crop, "seed": seed,
    }  # fmt: skip
    check(**settings)
    deployed = clip_model(model, "entropy-tuning")
    return DefendedModel("entropy-tuning", "entropy tuning", deployed, settings, lambda c: EntropyTuning(c, **settings))


def check(
    *, views: int = 63, keep: float = 0.1, lr: float = 0.005, neighbours: int = 20, temperature: float = 0.01,
    crop: float = 0.08, seed: int = 0,
) -> None:  # fmt: skip
    """Raise `UserError` for settings that mean nothing."""
    rules = {
        "views": (views >= 1, "of 1 or more"), "keep": (0 < keep <= 1, "above 0 and at most 1"), "lr": (lr >= 0, "of 0 or more"),
        "neighbours": (neighbours >= 1, "of 1 or more"), "temperature": (temperature > 0, "above 0"),
        "crop": (0 < crop <= 1, "above 0 and at most 1"),
    }  # fmt: skip
    defended.check_settings("entropy-tuning", rules)


class EntropyTuning(Defended):
    """See `entropy_tuning`. Gradients pass through views and weights; the tuned embeddings, a sign step, are constant to them."""

    def __init__(
        self, deployed: ClipClassifier, *, views: int, keep: float, lr: float, neighbours: int, temperature: float, crop: float,
        seed: int,
    ):  # fmt: skip
        super().__init__(deployed, seed)
        self.views, self.keep, self.lr = views, keep, lr
        self.neighbours, self.temperature, self.crop = neighbours, temperature, crop

    def cosines(self, images: Tensor) -> Tensor:
        everything = torch.cat([images[:, None], random_crops(images, self.noise(images), self.views, self.crop)], dim=1)
        embedding = self.deployed.embed(everything.flatten(0, 1)).float()
        with torch.autocast(images.device.type, enabled=False):
            z = F.normalize(embedding, dim=-1).view(len(images), self.views + 1, -1)
            found = torch.einsum("nvd,ncd->nvc", z, self.tuned(z.detach()))
            return (self.weights(z)[..., None] * found).sum(1)

    def weights(self, z: Tensor) -> Tensor:
        """Reliability of each view of unit embeddings (N, V, D): (N, V), of sum 1."""
        near = (z @ z.transpose(1, 2)).masked_fill(torch.eye(z.shape[1], dtype=torch.bool, device=z.device), -torch.inf)
        score = near.topk(min(self.neighbours, z.shape[1] - 1), dim=-1).values.mean(-1)
        return (score / self.temperature).softmax(-1)

    @torch.enable_grad()
    def tuned(self, z: Tensor) -> Tensor:
        """Class embeddings of each image after the step: unit (N, C, D), from views (N, V, D)."""
        shift = torch.zeros(len(z), *self.head.shape, device=z.device, requires_grad=True)
        found = torch.einsum("nvd,ncd->nvc", z, F.normalize(self.head + shift, dim=-1)) * self.scale
        entropy = -(found.softmax(-1) * found.log_softmax(-1)).sum(-1)
        surest = entropy.topk(max(int(self.keep * z.shape[1]), 1), dim=1, largest=False).values
        (gradient,) = torch.autograd.grad(surest.mean(1).sum(), shift)
        return F.normalize(self.head - self.lr * gradient.sign(), dim=-1)
