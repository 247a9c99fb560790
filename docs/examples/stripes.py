"""Stripes in four directions, drawn on demand."""

import hashlib

import numpy as np
import torch

from robustcal import register
from robustcal.types import Batch

ANGLES = {"horizontal": 0.0, "vertical": 90.0, "rising": 45.0, "falling": 135.0}


@register.dataset
def stripes(*, size: int = 400, width: float = 6.0):
    """``stripes:size=400:width=6``. Building is cheap; images are drawn in `read`."""
    return Stripes(size, width)


class Stripes:
    """What `robustcal.types.Dataset` asks for, and nothing else."""

    name = "stripes"  # the registered name
    classnames = tuple(ANGLES)  # position = label
    templates = ("{} stripes",)
    task = "single"  # or "multi", with labels (n, C) of 0 and 1; or "ood", with 0 alone
    resolution = 32  # the side at which images are attacked

    def __init__(self, size: int, width: float):
        self.width = width
        self.labels = np.arange(size, dtype=np.int64) % len(ANGLES)  # known without drawing an image
        self.ids = [f"stripes/test/{index:05d}" for index in range(size)]
        self.identity = hashlib.sha256(f"stripes 1 {width}".encode()).hexdigest()[:16]

    def read(self, indices) -> Batch:
        """These samples in this order: images (n, 3, 32, 32) float32 in [0, 1]."""
        rows = [int(index) for index in indices]
        images = torch.stack([torch.from_numpy(self.draw(index)) for index in rows])
        return Batch(tuple(self.ids[i] for i in rows), images, torch.from_numpy(self.labels[rows]))

    def draw(self, index: int) -> np.ndarray:
        """One image; its own generator, so that it is the same alone and in any batch."""
        generator = np.random.default_rng([7, index])
        colours = generator.random((2, 3, 1, 1))
        phase, tilt = generator.random() * self.width, generator.normal() * 8
        angle = np.deg2rad(list(ANGLES.values())[self.labels[index]] + tilt)
        y, x = np.mgrid[0:32, 0:32]
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.sin(angle) + y * np.cos(angle) + phase) / self.width)
        return (colours[0] * wave + colours[1] * (1 - wave)).astype(np.float32)
