"""CLIPure-Cos (Zhang et al. 2025): the image embedding purified by ascending its cosine with an empty prompt."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..registry import register
from . import defended
from .defended import Defended, DefendedModel, clip_model

BLANK = "a photo of a."


def identity(*, model: str, **settings: Any) -> str:
    """Identity of the model below and of every setting."""
    check(**settings)
    return defended.identity("clipure", model, settings)


@register.model(identity=identity, parts=("model",))
def clipure(*, model: str, steps: int = 10, rate: float = 30.0, blank: str = BLANK, through: bool = True) -> DefendedModel:
    """u <- (u + rate g) / |u + rate g|, g the unit gradient of cos(u, t) on the sphere, t the embedding of the empty prompt.

    A step is a rotation towards t by arctan(rate), and past it if it is nearer than that. With the published rate of 30, 88
    degrees, two steps lead back to where they began wherever cos(u, t) is above 0.033: ten of them change nothing.

    Args:
        model: spec of the deployed model.
        steps, rate: number and size of the steps.
        blank: the prompt without a class.
        through: gradients pass through the steps exactly; "false", g is a constant to them as in the released code, and
            each step divides the gradient by about `rate`.
    """
    settings: dict[str, Any] = {"steps": steps, "rate": rate, "blank": blank, "through": through}
    check(**settings)
    deployed = clip_model(model, "clipure")
    target = deployed.text_head(("",), [[blank]])[0]
    return DefendedModel("clipure", "CLIPure", deployed, settings, lambda c: Purified(c, target, steps, rate, through))


def check(*, steps: int = 10, rate: float = 30.0, blank: str = BLANK, through: bool = True) -> None:
    """Raise `UserError` for settings that mean nothing."""
    defended.check_settings("clipure", {"steps": (steps >= 1, "of 1 or more"), "rate": (rate > 0, "above 0")})


class Purified(Defended):
    """See `clipure`; nothing in it is random."""

    target: Tensor

    def __init__(self, deployed: ClipClassifier, target: Tensor, steps: int, rate: float, through: bool):
        super().__init__(deployed, randomised=False)
        self.register_buffer("target", target.to(deployed.head.device))
        self.steps, self.rate, self.through = steps, rate, through

    def cosines(self, images: Tensor) -> Tensor:
        embedding = self.deployed.embed(images).float()
        with torch.autocast(images.device.type, enabled=False):
            return self.purify(F.normalize(embedding, dim=-1)) @ self.head.t()

    def purify(self, u: Tensor) -> Tensor:
        """Unit embeddings (N, D) -> purified unit embeddings. d cos(u, t) / du on the sphere is t - (u t) u."""
        for _ in range(self.steps):
            slope = F.normalize(self.target - (u @ self.target)[:, None] * u, dim=-1)
            u = F.normalize(u + self.rate * (slope if self.through else slope.detach()), dim=-1)
        return u
