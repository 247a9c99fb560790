"""Test-time counterattack (TTC, Xing et al. 2025): the model perturbs every image itself before it classifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..clip import weights
from ..clip.classifier import DEFAULT_TEMPLATES, ClipClassifier, ClipModel
from ..noise import Noise
from ..registry import register
from ..types import Templates, UserError
from . import source


def identity(*, model: str, reference: str | None = None, **settings: Any) -> str:
    """Identity of the model below, of the reference tower, and of every setting."""
    check_settings(**settings)
    other = source.spec_identity(reference) if reference else None
    return weights.digest("ttc", source.spec_identity(model), other, sorted(settings.items()))


@register.model(identity=identity, parts=("model", "reference"))
def ttc(
    *, model: str, eps: float = 4 / 255, step: float = 1 / 255, steps: int = 2, beta: float = 2.0,
    threshold: float = 0.2, reference: str | None = None, seed: int = 0,
) -> CounterattackModel:  # fmt: skip
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
    settings = {"eps": eps, "step": step, "steps": steps, "beta": beta, "threshold": threshold, "seed": seed}
    check_settings(**settings)
    deployed = source.load_base(model)
    return CounterattackModel(deployed, source.load_base(reference) if reference else None, settings)


def check_settings(*, eps: float = 4 / 255, step: float = 1 / 255, steps: float = 2, **_: float) -> None:
    """Raise `UserError` for a counterattack that goes nowhere."""
    if not (eps > 0 and step > 0 and steps >= 1):
        given = f"eps={eps} step={step} steps={steps}"
        raise UserError(f"ttc needs eps and step above 0 and steps of 1 or more, not {given}")


class CounterattackModel:
    """A CLIP model behind the counterattack; see `ttc`."""

    def __init__(self, model: ClipModel, reference: ClipModel | None, settings: dict[str, Any]):
        for role, part in (("model", model), ("reference", reference)):
            if part is not None and not isinstance(part, ClipModel):
                what = getattr(part, "name", type(part).__name__)
                raise UserError(f"ttc cannot have '{what}' as its {role}: it needs a CLIP model, and nothing around it")
        self.model, self.reference, self.settings = model, reference, settings
        self.clip, self.scores, self.name = model.clip, model.scores, f"{model.name} with TTC"
        other = reference.fingerprint if reference else None
        self.fingerprint = weights.digest("ttc", model.fingerprint, other, sorted(settings.items()))

    def classifier(
        self, classnames: Sequence[str], templates: Templates = DEFAULT_TEMPLATES
    ) -> CounterattackClassifier:
        """A zero-shot classifier for these classes, defended."""
        deployed = self.model.classifier(classnames, templates)
        judge = self.reference.classifier(classnames, templates) if self.reference else None
        return CounterattackClassifier(deployed, judge, **self.settings).eval()


class CounterattackClassifier(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits (N, C) of the counterattacked images.

    The start of the counterattack is random. It is drawn from a stream keyed by (seed, draw, the image's own bytes),
    so that a sample's result depends on no batch, order or process, and an image judged twice is judged the same.
    Draw 0 is the deployed one. An attack that calls the classifier plainly meets draw 0 of every image it tries, as
    one who knows the seed would; an attack that averages over the randomness (EOT) asks for draws 1, 2, ... inside
    ``with classifier.drawing(k):`` and never sees the deployed one.

    Gradients pass to the images as if the counterattack were constant. Its steps are signs, whose derivative is zero
    almost everywhere, so this is the exact gradient but for clipping at the range, and BPDA's for that.
    """

    randomised = True

    def __init__(
        self, deployed: ClipClassifier, judge: ClipClassifier | None, *, eps: float, step: float, steps: int, beta: float,
        threshold: float, seed: int,
    ):  # fmt: skip
        super().__init__()
        self.deployed: ClipClassifier = deployed
        self.judge: ClipClassifier | None = judge
        self.eps, self.step, self.steps, self.beta = eps, step, steps, beta
        self.threshold, self.seed, self.draw = threshold, seed, 0
        self.classnames, self.num_classes = deployed.classnames, deployed.num_classes
        self.scores, self.alike = deployed.scores, deployed.alike
        self.fingerprint = weights.digest("ttc", deployed.fingerprint, eps, step, steps, beta, threshold, seed)

    @property
    def scale(self) -> Tensor:
        return self.deployed.scale

    @property
    def bias(self) -> Tensor:
        return self.deployed.bias

    @property
    def head(self) -> Tensor:
        return self.deployed.head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.deployed(images + self.counterattack(images))
        return logits

    def cosines(self, images: Tensor) -> Tensor:
        """Cosine similarities of the counterattacked images with each class: (N, C)."""
        return self.deployed.cosines(images + self.counterattack(images))

    @contextmanager
    def drawing(self, draw: int) -> Iterator[None]:
        """Use the independent randomness number `draw` inside; 0 is what is deployed."""
        before, self.draw = self.draw, draw
        try:
            yield
        finally:
            self.draw = before

    @torch.enable_grad()
    def counterattack(self, images: Tensor) -> Tensor:
        """The perturbation the defence adds to each image: (N, 3, H, W), inside its own ball and the range."""
        images = images.detach()
        box = (-images).clamp(min=-self.eps), (1 - images).clamp(max=self.eps)
        start = Noise(self.seed, self.keys(images), images.device).uniform(images.shape[1:], -self.eps, self.eps)
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

    def keys(self, images: Tensor) -> list[str]:
        """What each image's randomness is keyed by: its own bytes and the draw."""
        rows = images.float().cpu().contiguous().numpy()
        return [f"{hashlib.sha256(row.tobytes()).hexdigest()}/{self.draw}" for row in rows]
