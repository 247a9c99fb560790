"""Views of an image for test-time defences: windows of any place and size, sampled bilinearly and differentiably."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise import Noise


def windows(images: Tensor, left: Tensor, top: Tensor, width: Tensor, side: int) -> Tensor:
    """A square window of each image, scaled to `side` pixels: (N, 3, side, side).

    A window that leaves the image repeats its last pixels; a negative width mirrors it about its left end.

    Args:
        left, top, width: (N,) in pixels; the top left corner of the image is (0, 0).
    """
    height, breadth = images.shape[-2:]
    steps = (torch.arange(side, device=images.device) + 0.5) / side
    x = (left[:, None] + steps * width[:, None]) * (2 / breadth) - 1
    y = (top[:, None] + steps * width.abs()[:, None]) * (2 / height) - 1
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_crops(images: Tensor, noise: Noise, count: int, least: float) -> Tensor:
    """Random square crops, half of them mirrored, scaled back to the image's side: (N, count, 3, H, H).

    Args:
        least: smallest share of the image's area; the area is uniform from there to 1.
    """
    side = images.shape[-1]
    area, x, y, mirror = noise.uniform((count, 4)).flatten(0, 1).unbind(1)
    width = side * (least + (1 - least) * area).sqrt()
    left, top, flipped = x * (side - width), y * (side - width), mirror < 0.5
    repeated = images.repeat_interleave(count, 0)
    found = windows(repeated, torch.where(flipped, left + width, left), top, torch.where(flipped, -width, width), side)
    return found.view(len(images), count, *found.shape[1:])
