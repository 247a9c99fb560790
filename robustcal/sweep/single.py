"""One attack on one batch, outside a sweep: for a user's own module as well as for a classifier of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import registry
from ..exact import full_fp32
from ..noise import Noise
from ..types import UserError, parse_radius
from .declared import threat_of
from .run import make_attack
from .verify import project


class Described(nn.Module):
    """A module with what attacks ask of a classifier besides logits: how many classes it has."""

    def __init__(self, module: nn.Module, num_classes: int):
        super().__init__()
        self.module, self.num_classes, self.training = module, num_classes, getattr(module, "training", False)

    def forward(self, images: Tensor) -> Any:
        return self.module(images)


@full_fp32()
def attack_once(
    spec: str, classifier: nn.Module, images: Tensor, labels: Tensor, eps: str | float, ids: Sequence[str] | None, seed: int
) -> Tensor:
    """The attack's images, projected onto the ball and [0, 1]. See `robustcal.attack`."""
    if images.ndim != 4 or len(images) == 0 or images.min() < 0 or images.max() > 1:
        raise UserError("images must be (N, 3, H, W) with values in [0, 1]; normalisation belongs inside the classifier")
    ids = [str(number) for number in range(len(images))] if ids is None else list(ids)
    if len(ids) != len(images):
        raise UserError(f"{len(ids)} ids for {len(images)} images")
    if getattr(classifier, "training", False):
        raise UserError("the classifier is in training mode; call .eval() on it before it is attacked")
    classes = getattr(classifier, "num_classes", None)
    if classes is None:
        classifier = Described(classifier, classes := count_classes(classifier, images))
    check_labels(labels, len(images), classes)
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec(spec))
    threat = threat_of(plugin, arguments, parse_radius(eps), images.shape[-1])

    def surrogate(model: str) -> Any:
        names = getattr(classifier, "classnames", None)
        if names is None:
            raise UserError(f"'{spec}' needs the class names; give a classifier of load_model(...).classifier(names, templates)")
        return registry.models.build(model).classifier(names)

    run = make_attack(spec, surrogate)
    with frozen(classifier):
        proposal = run(classifier, images.clone(), labels.clone(), threat, Noise(seed, ids, images.device)).detach()
    with torch.no_grad():
        return project(images, proposal, threat)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for parameters inside: an attack needs those of the images, and some libraries leave others behind."""
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@torch.no_grad()
def count_classes(classifier: nn.Module, images: Tensor) -> int:
    """How many logits one image has."""
    logits = classifier(images[:1])
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError("the classifier must return logits (N, C), one row for each image")
    return logits.shape[1]


def check_labels(labels: Tensor, count: int, classes: int) -> None:
    """Raise `UserError` unless labels are (N,) class indices or (N, C) multi-hot."""
    single = labels.ndim == 1 and not labels.is_floating_point() and bool(((labels >= 0) & (labels < classes)).all())
    if len(labels) != count or not (single or labels.shape == (count, classes)):
        raise UserError(f"labels must be ({count},) indices of {classes} classes, or ({count}, {classes}) multi-hot")
