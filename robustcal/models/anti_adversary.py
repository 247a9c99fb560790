"""Anti-adversary (Alfarra et al. 2022): every image moved towards its own prediction, then perhaps judged in several views."""

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
    return defended.identity("anti-adversary", model, settings)


@register.model(identity=identity, parts=("model",))
def anti_adversary(
    *, model: str, eps: float = 4 / 255, step: float = 2 / 255, steps: int = 2, views: int = 0, crop: float = 0.5, seed: int = 0,
) -> DefendedModel:  # fmt: skip
    """x + gamma, gamma the sign steps that lower the cross-entropy of the predicted label; logits averaged over random crops.

    Args:
        model: spec of the deployed model.
        eps, step, steps: radius, size and number of the steps; 0 steps leave the image as it is.
        views: random crops besides the image whose logits are averaged with its own (test-time augmentation); 0 makes the
            defence deterministic.
        crop: smallest share of the image's area in a crop.
        seed: of the crops.
    """
    settings: dict[str, Any] = {"eps": eps, "step": step, "steps": steps, "views": views, "crop": crop, "seed": seed}
    check(**settings)
    deployed = clip_model(model, "anti-adversary")
    return DefendedModel("anti-adversary", "anti-adversary", deployed, settings, lambda c: AntiAdversary(c, **settings))


def check(
    *, eps: float = 4 / 255, step: float = 2 / 255, steps: int = 2, views: int = 0, crop: float = 0.5, seed: int = 0
) -> None:
    """Raise `UserError` for settings that mean nothing."""
    rules = {
        "eps": (eps > 0, "above 0"), "step": (step > 0, "above 0"), "steps": (steps >= 0, "of 0 or more"),
        "views": (views >= 0, "of 0 or more"), "crop": (0 < crop <= 1, "above 0 and at most 1"),
    }  # fmt: skip
    defended.check_settings("anti-adversary", rules)


class AntiAdversary(Defended):
    """See `anti_adversary`. The steps are signs: to the gradient they are constant, which is exact but for clipping."""

    def __init__(
        self, deployed: ClipClassifier, *, eps: float, step: float, steps: int, views: int, crop: float, seed: int
    ):
        super().__init__(deployed, seed, randomised=views > 0)
        self.eps, self.step, self.steps, self.views, self.crop = eps, step, steps, views, crop

    def cosines(self, images: Tensor) -> Tensor:
        moved = images + self.anti(images)
        if not self.views:
            return self.deployed.cosines(moved)
        everything = torch.cat([moved[:, None], random_crops(moved, self.noise(images), self.views, self.crop)], dim=1)
        found = self.deployed.cosines(everything.flatten(0, 1))
        return found.view(len(images), self.views + 1, -1).mean(1)

    @torch.enable_grad()
    def anti(self, images: Tensor) -> Tensor:
        """The perturbation (N, 3, H, W) that makes the prediction surer, inside its own ball and the range."""
        images = images.detach()
        low, high = (-images).clamp(min=-self.eps), (1 - images).clamp(max=self.eps)
        gamma, own = torch.zeros_like(images), None
        for _ in range(self.steps):
            gamma = gamma.requires_grad_(True)
            logits = self.deployed(images + gamma)
            own = logits.detach().argmax(1) if own is None else own
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, own, reduction="sum"), gamma)
            gamma = (gamma.detach() - self.step * gradient.sign()).clamp(low, high)
        return gamma
