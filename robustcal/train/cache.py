"""A data set decoded once and kept in memory as bytes, at the size at which it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..types import Batch, Dataset, Templates, UserError

CHUNK = 512


@dataclass
class Cached:
    """The samples of a data set with their pixels (n, 3, S, S) uint8; satisfies `types.Dataset`."""

    name: str
    classnames: Sequence[str]
    templates: Templates
    task: str
    resolution: int
    labels: np.ndarray
    ids: Sequence[str]
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Sequence[int]) -> Batch:
        """These samples in this order."""
        rows = [int(index) for index in indices]
        images = self.pixels[rows].float().div_(255)
        return Batch(tuple(self.ids[row] for row in rows), images, torch.from_numpy(self.labels[rows]))


def cached(dataset: Dataset, side: int) -> Cached:
    """Decode every sample of `dataset`; its images must have `side` pixels, and be whole multiples of 1/255.

    Raises:
        UserError: if they have another size, saying how to ask for the right one, or if one does not decode.
    """
    if dataset.resolution != side:
        wanted = f"image_size is {side}; give the source :resolution={side}"
        raise UserError(f"source '{dataset.name}' has images of {dataset.resolution} pixels, but {wanted}")
    count = len(dataset.ids)
    pixels = torch.empty((count, 3, side, side), dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        part = dataset.read(list(range(start, min(start + CHUNK, count))))
        pixels[start : start + len(part)] = (part.images * 255).round().to(torch.uint8)
    labels = np.asarray(dataset.labels)
    return Cached(
        dataset.name, dataset.classnames, dataset.templates, dataset.task, side, labels, dataset.ids, pixels
    )
