"""Test-time counterattack (TTC, Xing et al. 2025): the model perturbs every image itself before it classifies it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..registry import register
from ..types import UserError
from . import defended
from .defended import Defended, DefendedModel, clip_model


def identity(*, model: str, reference: str | None = None, **settings: Any) -> str:
    """Identity of the model below, of the reference tower, and of every setting."""
    check_settings(**settings)
    return defended.identity("ttc", model, settings, reference)


@register.model(identity=identity, parts=("model", "reference"))
def ttc(
    *, model: str, eps: float = 4 / 255, step: float = 1 / 255, steps: int = 2, beta: float = 2.0,
    threshold: float = 0.2, reference: str | None = None, seed: int = 0,
) -> DefendedModel:  # fmt: skip
    """Wrap a model in the test-time counterattack. The defence is random; attack it with ``eot``.

    Args:
        model: spec of the deployed model.
        eps, step, steps: radius, step size and number of the counterattack's own sign steps.
        beta: iterate i of 0..steps weighs exp(beta i) in the final perturbation.
        threshold: relative change of the embedding under noise at and above which the image gets the noise alone.
        reference: spec of the model whose image tower measures that change; default: the deployed one. The release
            uses the original CLIP where the deployed tower is a fine-tune.
        seed: of the defence's own randomness.

    Raises:
        UserError: if eps or step is not positive, or steps is below 1.
    """
    settings: dict[str, Any] = {"eps": eps, "step": step, "steps": steps, "beta": beta, "threshold": threshold, "seed": seed}
    check_settings(**settings)
    deployed = clip_model(model, "ttc")
    other = clip_model(reference, "ttc", "reference") if reference else None

    def make(classifier: ClipClassifier) -> Counterattack:
        return Counterattack(classifier, other.classifier(classifier.classnames) if other else None, **settings)

    return DefendedModel("ttc", "TTC", deployed, settings, make, other)


def check_settings(*, eps: float = 4 / 255, step: float = 1 / 255, steps: float = 2, **_: float) -> None:
    """Raise `UserError` for a counterattack that goes nowhere."""
    if not (eps > 0 and step > 0 and steps >= 1):
        given = f"eps={eps} step={step} steps={steps}"
        raise UserError(f"ttc needs eps and step above 0 and steps of 1 or more, not {given}")


class Counterattack(Defended):
    """A classifier whose images are counterattacked first, from a random start; see `defended.Defended`.

    Gradients pass to the images as if the counterattack were constant. Its steps are signs, whose derivative is zero
    almost everywhere, so this is the exact gradient but for clipping at the range, and BPDA's for that.
    """

    def __init__(
        self, deployed: ClipClassifier, judge: ClipClassifier | None, *, eps: float, step: float, steps: int, beta: float,
        threshold: float, seed: int,
    ):  # fmt: skip
        super().__init__(deployed, seed)
        self.judge: ClipClassifier | None = judge
        self.eps, self.step, self.steps, self.beta, self.threshold = eps, step, steps, beta, threshold

    def cosines(self, images: Tensor) -> Tensor:
        return self.deployed.cosines(images + self.counterattack(images))

    @torch.enable_grad()
    def counterattack(self, images: Tensor) -> Tensor:
        """The perturbation the defence adds to each image: (N, 3, H, W), inside its own ball and the range."""
        images = images.detach()
        box = (-images).clamp(min=-self.eps), (1 - images).clamp(max=self.eps)
        start = self.noise(images).uniform(images.shape[1:], -self.eps, self.eps)
        deltas = [start.clamp(*box)]
        with torch.no_grad():
            clean = self.deployed.embed(images)
        for _ in range(self.steps):
            delta = deltas[-1].detach().requires_grad_(True)
            away = (self.deployed.embed(images + delta) - clean).pow(2).sum()
            (gradient,) = torch.autograd.grad(away, delta)
            deltas.append((delta.detach() + self.step * gradient.sign()).clamp(*box))
        weight = torch.softmax(self.beta * torch.arange(len(deltas), device=images.device, dtype=torch.float32), 0)
        moved = sum(w * delta for w, delta in zip(weight, deltas)).clamp(*box)  # rounding may have left the box
        stable = self.relative_change(images, deltas[0]) < self.threshold
        return torch.where(stable[:, None, None, None], moved, deltas[0]).detach()

    @torch.no_grad()
    def relative_change(self, images: Tensor, delta: Tensor) -> Tensor:
        """|phi(x + delta) - phi(x)| / |phi(x)| of each image: (N,). A small one is the sign of an attack."""
        tower = self.judge or self.deployed
        clean = tower.embed(images)
        change: Tensor = (tower.embed(images + delta) - clean).norm(dim=1) / clean.norm(dim=1)
        return change
