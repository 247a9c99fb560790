"""Corruptions of sensors, colours and coding, as in ImageNet-C: noise, brightness, contrast, elastic, pixels, JPEG.

Every function takes an image (H, W, 3) float64 in [0, 1], the parameter of a severity and the random stream of its sample,
and returns an image, which the caller clips. Pixels are not rounded to 8 bits unless a step needs it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from . import colour

Pair = tuple[float, float]


def gaussian_noise(image: np.ndarray, spread: float, stream: np.random.Generator) -> np.ndarray:
    """Plus normal noise of this standard deviation."""
    return image + stream.normal(scale=spread, size=image.shape)


def shot_noise(image: np.ndarray, photons: float, stream: np.random.Generator) -> np.ndarray:
    """Poisson counts of which white has `photons` on average."""
    return np.asarray(stream.poisson(image * photons) / photons)


def impulse_noise(image: np.ndarray, amount: float, stream: np.random.Generator) -> np.ndarray:
    """A share of all values become 0 or 1, at even odds."""
    hit, high = stream.random(image.shape) < amount, stream.random(image.shape) < 0.5
    return np.where(hit, high.astype(image.dtype), image)


def speckle_noise(image: np.ndarray, spread: float, stream: np.random.Generator) -> np.ndarray:
    """Plus the image times normal noise."""
    return image + image * stream.normal(scale=spread, size=image.shape)


def brightness(image: np.ndarray, amount: float, stream: np.random.Generator) -> np.ndarray:
    """Plus `amount` on the value of HSV."""
    return _in_hsv(image, 1, 0, 1, amount)


def saturate(image: np.ndarray, change: Pair, stream: np.random.Generator) -> np.ndarray:
    """Saturation of HSV times a factor, plus an offset."""
    return _in_hsv(image, *change, 1, 0)


def _in_hsv(image: np.ndarray, factor: float, offset: float, scale: float, shift: float) -> np.ndarray:
    hue, saturation, value = colour.rgb_to_hsv(torch.from_numpy(image).permute(2, 0, 1)[None])
    changed = colour.hsv_to_rgb(hue, (saturation * factor + offset).clamp(0, 1), (value * scale + shift).clamp(0, 1))
    return np.asarray(changed[0].permute(1, 2, 0).numpy())


def contrast(image: np.ndarray, factor: float, stream: np.random.Generator) -> np.ndarray:
    """Distances from each channel's mean times a factor."""
    mean = image.mean((0, 1), keepdims=True)
    return np.asarray((image - mean) * factor + mean)


def jpeg_compression(image: np.ndarray, quality: float, stream: np.random.Generator) -> np.ndarray:
    """Written and read by Pillow at this quality, 1 to 95; colours at half the resolution, as its default is."""
    file = BytesIO()
    to_picture(image).save(file, "JPEG", quality=int(quality))
    return from_picture(Image.open(file))


def pixelate(image: np.ndarray, share: float, stream: np.random.Generator) -> np.ndarray:
    """Box-averaged to this share of the side, and enlarged again."""
    side = image.shape[0]
    small = to_picture(image).resize((max(int(side * share), 1),) * 2, Image.Resampling.BOX)
    return from_picture(small.resize((side, side), Image.Resampling.BOX))


def elastic_transform(image: np.ndarray, amounts: tuple[float, float, float], stream: np.random.Generator) -> np.ndarray:
    """A random affine map that moves three points by up to the third amount, then a smoothed random displacement.

    The first two amounts are the size of the displacement and the sigma of its smoothing, in pixels.
    """
    size, sigma, reach = amounts
    side = image.shape[0]
    centre, arm = float(side // 2), float(side // 3)
    points = np.array([[centre + arm, centre + arm], [centre + arm, centre - arm], [centre - arm, centre - arm]])
    moved = points + stream.uniform(-reach, reach, points.shape)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # (x, y, 1) of the result -> (x, y) of the image
    y, x = np.mgrid[:side, :side].astype(np.float64)
    source = np.stack([x, y, np.ones_like(x)], -1) @ back
    image = _sample(image, source[..., 1], source[..., 0], "mirror")
    dx, dy = (
        ndimage.gaussian_filter(stream.uniform(-1, 1, (side, side)), sigma, mode="reflect", truncate=3) * size for _ in range(2)
    )
    return _sample(image, y + dy, x + dx, "reflect")


def _sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: Literal["mirror", "reflect"]) -> np.ndarray:
    channels = [ndimage.map_coordinates(image[..., c], [rows, columns], order=1, mode=mode) for c in range(3)]
    return np.stack(channels, -1)


def to_picture(image: np.ndarray) -> Image.Image:
    """An image as 8-bit RGB, rounded."""
    return Image.fromarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8))


def from_picture(picture: Image.Image) -> np.ndarray:
    """8-bit RGB as an image."""
    return np.asarray(picture, dtype=np.float64) / 255
