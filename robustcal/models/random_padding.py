"""Random resizing and padding (Xie et al. 2018): every image enlarged by chance and put somewhere on a black canvas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..registry import register
from . import defended
from .defended import Defended, DefendedModel, clip_model
from .views import windows


def identity(*, model: str, **settings: Any) -> str:
    """Identity of the model below and of every setting."""
    check(**settings)
    return defended.identity("random-padding", model, settings)


@register.model(identity=identity, parts=("model",))
def random_padding(*, model: str, enlarge: float = 331 / 299, seed: int = 0) -> DefendedModel:
    """Resized to a side drawn uniformly from that of the image up to below `enlarge` times it, at a random place of the canvas.

    The canvas is then scaled to what the image tower expects, where the paper's network takes any size. Resizing is
    bilinear, so that gradients pass.

    Args:
        model: spec of the deployed model.
        enlarge: side of the canvas over that of the image; the paper's 331 for 299 pixels.
        seed: of sizes and places.
    """
    settings: dict[str, Any] = {"enlarge": enlarge, "seed": seed}
    check(**settings)
    deployed = clip_model(model, "random-padding")
    return DefendedModel("random-padding", "random padding", deployed, settings, lambda c: RandomPadding(c, **settings))


def check(*, enlarge: float = 331 / 299, seed: int = 0) -> None:
    """Raise `UserError` for settings that mean nothing."""
    defended.check_settings("random-padding", {"enlarge": (1 < enlarge <= 4, "above 1 and at most 4")})


class RandomPadding(Defended):
    """See `random_padding`."""

    def __init__(self, deployed: ClipClassifier, *, enlarge: float, seed: int):
        super().__init__(deployed, seed)
        self.enlarge = enlarge

    def cosines(self, images: Tensor) -> Tensor:
        return self.deployed.cosines(self.padded(images))

    def padded(self, images: Tensor) -> Tensor:
        """Images on their canvases: (N, 3, S, S)."""
        canvas, side, left, top = self.places(images)
        scale = images.shape[-1] / side
        found = windows(images, -left * scale, -top * scale, canvas * scale, canvas)
        at = torch.arange(canvas, device=images.device)
        column = (at >= left[:, None]) & (at < (left + side)[:, None])
        row = (at >= top[:, None]) & (at < (top + side)[:, None])
        return found * (row[:, None, :, None] & column[:, None, None, :])

    def places(self, images: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
        """Side of the canvas, and of each image its new side and the column and row where it begins: (N,) each."""
        own = images.shape[-1]
        canvas = max(round(own * self.enlarge), own + 1)
        draw = self.noise(images).uniform((3,))
        side = own + torch.floor(draw[:, 0] * (canvas - own))
        left, top = (torch.floor(draw[:, i] * (canvas - side + 1)) for i in (1, 2))
        return canvas, side, left, top
