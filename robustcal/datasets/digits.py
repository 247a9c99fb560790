"""The real handwritten digits that ship with scikit-learn: 1,797 scans of 8x8 pixels, enlarged to 32x32 RGB."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..registry import register
from ..types import Batch, UserError
from .sides import at_side, check_side

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RESOLUTION = 32
FACTOR, BORDER = 3, 4  # 8 pixels -> 24, then a black border of 4, so that strokes do not touch the edge


@register.dataset
def digits(*, card: Mapping[str, Any] | None = None, split: str = "test", resolution: int = RESOLUTION) -> Digits:
    """All 1,797 scans as one split, `test`. No model of this package is ever trained on any of them.

    Args:
        resolution: side in pixels at which an attack may change the images; 32, or a multiple or divisor of it.

    Raises:
        UserError: a split other than `test`, or a resolution that cannot be made.
    """
    if split != "test":
        raise UserError(f"'digits' has no split '{split}'; all of it is split=test")
    templates = (card or {}).get("templates", ("This is a photo of the digit {}",))
    return Digits(tuple(templates), check_side("digits", resolution, RESOLUTION))


class Digits:
    """White strokes on black, grey levels 0..16 of the scans read as 0..1."""

    name, task, split = "digits", "single", "test"
    classnames = CLASSNAMES

    def __init__(self, templates: Sequence[str], resolution: int = RESOLUTION):
        from sklearn.datasets import load_digits

        scans = load_digits()
        self.templates, self.resolution = templates, resolution
        self.scans = (scans.images / 16).astype(np.float32)
        self.labels = scans.target.astype(np.int64)
        self.ids = [f"digits/test/{index:05d}" for index in range(len(self.labels))]
        content = self.scans.tobytes() + self.labels.tobytes() + bytes([FACTOR, BORDER])
        self.identity = hashlib.sha256(content).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> Batch:
        """Enlarge these scans: images (n, 3, S, S) float32 in [0, 1], three equal channels."""
        import torch

        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        pixels = np.repeat(enlarge(self.scans[rows])[:, None], 3, axis=1)
        images = at_side(torch.from_numpy(pixels), self.resolution)
        return Batch(tuple(self.ids[i] for i in rows), images, torch.from_numpy(self.labels[rows]))


def enlarge(scans: np.ndarray) -> np.ndarray:
    """Bilinear enlargement with a black border: (n, 8, 8) -> (n, 32, 32) float32, the same bits in any batch."""
    for axis in (1, 2):
        size = scans.shape[axis]
        place = ((np.arange(size * FACTOR) + 0.5) / FACTOR - 0.5).clip(0, size - 1)
        low = np.minimum(place.astype(int), size - 2)
        share = (place - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        scans = scans.take(low, axis) * (1 - share) + scans.take(low + 1, axis) * share
    return np.pad(scans, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
