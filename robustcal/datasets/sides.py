"""Small images at another resolution, for sets whose pixels are made here: an attack then has more or fewer of them."""

from __future__ import annotations

from torch import Tensor

from ..types import UserError


def check_side(name: str, side: int, made: int) -> int:
    """The side asked for, in pixels.

    Raises:
        UserError: if it neither divides `made`, the side of the images as they are made, nor is a multiple of it.
    """
    if side < 1 or (made % side and side % made):
        raise UserError(f"'{name}' has no resolution={side}; give {made}, a multiple of it or a divisor of it")
    return side


def at_side(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, s, s) -> (n, 3, side, side): pixels repeated, or averaged in blocks.

    Repeated pixels average back to the very image, so that a larger side changes what an attack may do and not what
    a model that resizes with antialiasing sees on clean images.
    """
    made = images.shape[-1]
    if side == made:
        return images
    if side > made:
        return images.repeat_interleave(side // made, 2).repeat_interleave(side // made, 3)
    narrow = images.reshape(*images.shape[:3], side, -1).mean(4)
    return narrow.reshape(*narrow.shape[:2], side, -1, side).mean(3)
