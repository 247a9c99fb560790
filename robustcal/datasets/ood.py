"""Images of one dataset under the class names of another: out of distribution, where no class is right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..registry import datasets, register
from ..types import Batch, Dataset, UserError


@register.dataset
def ood(*, images: str, classes: str) -> Unknown:
    """``ood:images=SPEC:classes=SPEC``: the images of the first dataset, class names and prompts of the second.

    Labels are multi-hot rows without a class, so a prediction is never right: `correct` is false, the label's probability 0,
    and no table averages these cells with those of labelled sets. Attacks that need no label are
    ``confidence:goal=known`` and ``confidence:goal=unknown``.

    Args:
        images, classes: specs without parameters of their own: names, cards, folders.

    Raises:
        UserError: one of them is not here, several images have no name of their own, or all class names are shared.
    """
    shown, named = datasets.spec(images), datasets.spec(classes)
    sources = [datasets.arguments(spec)[0].source_sha256 or "" for spec in (shown, named)]
    return Unknown(datasets.build(shown), datasets.build(named), f"{shown} {named} {' '.join(sources)}")


class Unknown:
    """The images of `shown` with nothing right among the classes of `named`."""

    task = "ood"

    def __init__(self, shown: Dataset, named: Dataset, what: str):
        known = {str(name).casefold() for name in named.classnames}
        common = [str(name) for name in shown.classnames if str(name).casefold() in known]
        if len(common) == len(shown.classnames):
            raise UserError(f"the classes of '{shown.name}' are all among those of '{named.name}': its images are not unknown")
        self.notes = [f"{len(common)} classes of the images are among the class names, as '{common[0]}' is"] if common else []
        self.notes += getattr(shown, "notes", [])
        self.shown, self.name, self.ids, self.resolution = shown, shown.name, shown.ids, shown.resolution
        self.classnames, self.templates = named.classnames, named.templates
        self.labels = np.broadcast_to(np.zeros((1, len(self.classnames)), np.float32), (len(self.ids), len(self.classnames)))
        self.identity = hashlib.sha256(f"{what} {getattr(shown, 'identity', '')}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Sequence[int]) -> Batch:
        """These images, each with an empty row of labels: (n, C) zeros."""
        import torch

        batch = self.shown.read(indices)
        return Batch(batch.ids, batch.images, torch.zeros(len(batch), len(self.classnames)))
