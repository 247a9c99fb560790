"""Blurs, as in ImageNet-C. Images, parameters and streams as in `degradations`."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, signal

Pair = tuple[float, float]


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothed along both sides, edges repeated: (H, W) or (H, W, channels)."""
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim], mode="nearest"))


def gaussian_blur(image: np.ndarray, sigma: float, stream: np.random.Generator) -> np.ndarray:
    """Smoothed with this sigma, in pixels."""
    return gaussian(image, sigma)


def defocus_blur(image: np.ndarray, lens: Pair, stream: np.random.Generator) -> np.ndarray:
    """Averaged over a disk of this radius, whose rim is smoothed by the second number."""
    kernel = disk(*lens)
    reach = len(kernel) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return np.asarray(signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))


def disk(radius: float, smooth: float) -> np.ndarray:
    """Weights of a disk, with sum 1: 17 x 17 up to radius 8, else (2 radius + 1) squared."""
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    along = np.arange(-reach, reach + 1)
    inside = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float64)
    rim = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smooth**2))
    for axis in (0, 1):
        inside = ndimage.correlate1d(inside, rim / rim.sum(), axis, mode="mirror")
    return np.asarray(inside / inside.sum())


def glass_blur(image: np.ndarray, glass: tuple[float, int, int], stream: np.random.Generator) -> np.ndarray:
    """Smoothed, pixels replaced by near ones again and again, smoothed: sigma, reach, rounds.

    The released code means to swap two pixels; as it is written, the second is copied over the first, and so it is here.
    """
    sigma, reach, rounds = glass
    side = image.shape[0]
    image = np.floor(gaussian(image, sigma) * 255) / 255
    places = np.arange(side - reach, reach, -1)
    rows, columns = (grid.ravel() for grid in np.meshgrid(places, places, indexing="ij"))
    source = list(range(side * side))
    for _ in range(rounds):
        dx, dy = stream.integers(-reach, reach, (2, len(rows)))
        for here, there in zip((rows * side + columns).tolist(), ((rows + dy) * side + columns + dx).tolist(), strict=True):
            source[here] = source[there]  # in this order: a pixel may have moved before
    return gaussian(image.reshape(-1, 3)[source].reshape(image.shape), sigma)


def motion_blur(image: np.ndarray, motion: Pair, stream: np.random.Generator) -> np.ndarray:
    """Smeared along a direction drawn from U(-45, 45) degrees: radius and sigma."""
    return smear(image, *motion, stream.uniform(-45, 45))


def smear(image: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Half a Gaussian of 2 radius + 1 whole pixels to one side, edges repeated: the motion blur of ImageMagick."""
    length = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    angle, (height, width) = math.radians(degrees), image.shape[:2]
    total = np.zeros_like(image)
    for step, weight in enumerate(weights / weights.sum()):
        rows = (np.arange(height) + math.ceil(step * math.sin(angle) - 0.5)).clip(0, height - 1)
        columns = (np.arange(width) + math.ceil(step * math.cos(angle) - 0.5)).clip(0, width - 1)
        total += weight * image[rows][:, columns]
    return total


def zoom_blur(image: np.ndarray, zooms: Pair, stream: np.random.Generator) -> np.ndarray:
    """Mean of the image and its enlargements by 1 up to (not with) the first number, in steps of the second."""
    factors = np.arange(1, *zooms)
    return np.asarray((image + sum(enlarge(image, factor) for factor in factors)) / (len(factors) + 1))


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, bilinearly enlarged to its size: (H, W, channels)."""
    side = image.shape[0]
    kept = math.ceil(side / factor)
    start = (side - kept) // 2
    large = ndimage.zoom(image[start : start + kept, start : start + kept], (factor, factor, 1), order=1)
    trim = (large.shape[0] - side) // 2
    return np.asarray(large[trim : trim + side, trim : trim + side])
