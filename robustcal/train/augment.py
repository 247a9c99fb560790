"""The standard augmentation of photographs, as a pure function of the pixels and the numbers that decide."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: How many uniform numbers one image's augmentation uses.
DRAWS = 7


def augment(pixels: Tensor, u: np.ndarray, *, pad: int = 0, flip: bool = False, crop_scale: float = 1.0) -> Tensor:
    """Random resized crop, padded random crop, horizontal flip: images (n, 3, S, S) float32 in [0, 1].

    Args:
        pixels: (n, 3, S, S) uint8.
        u: uniform numbers in [0, 1), (n, DRAWS): a row decides about one image, whatever stands beside it.
        pad: pixels by which an image is shifted at most, in each direction; what enters is its mirror image.
        flip: mirror every image whose last number is below one half.
        crop_scale: smallest share of the area that a resized crop keeps (aspect 3/4 to 4/3); 1: none.
    """
    images = resized_crop(pixels.float().div_(255), u[:, :4], crop_scale) if crop_scale < 1 else pixels
    if pad:
        images = _shifted(images, (u[:, 4:6] * (2 * pad + 1)).astype(np.int64) - pad)
    if flip:
        mirrored = torch.from_numpy(u[:, 6] < 0.5)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images if images.is_floating_point() else images.float().div_(255)


def resized_crop(images: Tensor, u: np.ndarray, least: float) -> Tensor:
    """A box of each image, enlarged to the whole side by bilinear interpolation: (n, 3, S, S).

    The share of the area is uniform in [least, 1], the logarithm of the aspect in [log 3/4, log 4/3], the place
    uniform; a side that would be longer than the image is the image's.
    """
    area, aspect = least + (1 - least) * u[:, 0], np.exp((2 * u[:, 1] - 1) * np.log(4 / 3))
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    boxes = np.zeros((len(u), 2, 3), np.float32)  # output coordinates in [-1, 1] -> input coordinates
    boxes[:, 0, 0], boxes[:, 0, 2] = width, (2 * u[:, 2] - 1) * (1 - width)
    boxes[:, 1, 1], boxes[:, 1, 2] = height, (2 * u[:, 3] - 1) * (1 - height)
    grid = F.affine_grid(torch.from_numpy(boxes), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _shifted(images: Tensor, shift: np.ndarray) -> Tensor:
    """Image i moved by `shift[i]` (rows, columns) pixels, mirrored at its border without repeating it."""
    side = images.shape[-1]
    place = np.abs(np.arange(side) + shift[:, :, None])
    place = torch.from_numpy(np.where(place >= side, 2 * (side - 1) - place, place))
    rows, columns = place[:, 0, None, :, None], place[:, 1, None, None, :]
    return images[torch.arange(len(images))[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, columns]
