"""A classifier that counts: forward passes, input gradients and zero gradients of every sample of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

#: What else of a classifier takes images through its tower: the embedding, and the model behind a test-time defence.
PASSES = ("embed", "deployed")


class Meter(nn.Module):
    """Wrap a classifier for one batch of `count` samples; an attack sees this and nothing else.

    Calls on the whole batch are counted per sample. A call on part of it (an attack that drops finished samples) does
    not say which samples it holds, so its cost is spread evenly.

    Args:
        classifier: images -> logits.
        search: dtype of the attack's passes; below float32 they run under autocast, logits return in float32.
    """

    def __init__(self, classifier: nn.Module, count: int, search: torch.dtype = torch.float32):
        super().__init__()
        self.classifier, self.count, self.search = classifier, count, search
        # A library that puts the model back into the mode it found must find the classifier's own.
        self.training = getattr(classifier, "training", False)
        self.counts = {name: torch.zeros(count) for name in ("forwards", "backwards", "zero_gradients")}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("classifier"), name)
        return partial(self._counted, found) if name in PASSES else found

    def forward(self, images: Tensor) -> Tensor:
        return self._counted(self.classifier, images)

    def _counted(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        self._add("forwards", torch.ones(len(images)))
        if images.requires_grad:
            images = _CountGradient.apply(images, self)
        with torch.autocast(images.device.type, dtype=self.search, enabled=self.search != torch.float32):
            return function(images).float()

    def _add(self, name: str, amount: Tensor) -> None:
        amount = amount if len(amount) == self.count else amount.sum() / self.count
        self.counts[name] = self.counts[name].to(amount.device) + amount


class _CountGradient(torch.autograd.Function):
    """The identity; its backward pass counts the gradient on its way to the image. No host synchronisation.

    A channels-last tower gives a gradient in its own layout; attacks get the image's, which `view` takes.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, meter: Meter) -> Tensor:
        ctx.meter = meter
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        ctx.meter._add("backwards", torch.ones(len(gradient), device=gradient.device))
        ctx.meter._add("zero_gradients", (gradient.flatten(1) == 0).all(1).float())
        return gradient, None
