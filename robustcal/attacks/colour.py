"""Differentiable image changes of the composite attack: hue, saturation, rotation, brightness, contrast.

Each takes images (N, 3, H, W) in [0, 1] and one amount per image (N,), in the unit named, and stays differentiable in
both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sextants [0, 6), saturation and value in [0, 1], each (N, H, W)."""
    red, green, blue = images.unbind(1)
    value, index = images.max(1)
    spread = value - images.amin(1)
    safe = spread.clamp(min=1e-8)
    sextant = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe], 1)
    hue = sextant.gather(1, index[:, None])[:, 0] % 6
    return hue, spread / value.clamp(min=1e-8), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`."""
    channels = []
    for offset in (5, 3, 1):
        k = (hue + offset) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def shift_hue(images: Tensor, radians: Tensor) -> Tensor:
    """Turn the colour circle by `radians`."""
    hue, saturation, value = rgb_to_hsv(images)
    return hsv_to_rgb((hue + _wide(radians)[:, 0] * 3 / torch.pi) % 6, saturation, value)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the HSV saturation, clipped to [0, 1]."""
    hue, saturation, value = rgb_to_hsv(images)
    return hsv_to_rgb(hue, (saturation * _wide(factor)[:, 0]).clamp(0, 1), value)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate about the centre, bilinear, black outside."""
    angle = degrees * torch.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def shift_brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Add `amount`, clipped to [0, 1]."""
    return (images + _wide(amount)).clamp(0, 1)


def scale_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply every pixel, clipped to [0, 1]."""
    return (images * _wide(factor)).clamp(0, 1)


def _wide(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1, 1)
