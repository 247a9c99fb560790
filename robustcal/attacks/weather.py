"""Weather, as in ImageNet-C: fog, frost, snow, spatter. Images, parameters and streams as in `degradations`."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .blurs import enlarge, gaussian, smear

WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255
GREY = np.array([0.299, 0.587, 0.114])


def fog(image: np.ndarray, density: tuple[float, float], stream: np.random.Generator) -> np.ndarray:
    """Plus a plasma times the first number, scaled so that the brightest value can stay: the second is the plasma's decay."""
    amount, decay = density
    brightest, side = image.max(), image.shape[0]
    return np.asarray((image + amount * plasma(side, decay, stream)[..., None]) * brightest / (brightest + amount))


def plasma(side: int, decay: float, stream: np.random.Generator) -> np.ndarray:
    """A fractal height field in [0, 1] by the diamond-square algorithm on a torus: (side, side).

    Noise of each halving is U(-w^2, w^2), w = 100 at first and divided by `decay`.
    """
    size = 1 << max(side - 1, 1).bit_length()
    field, step, width = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half, corner = step // 2, field[::step, ::step]

        def between(total: np.ndarray, width: float = width) -> np.ndarray:
            return np.asarray(total / 4 + width * stream.uniform(-width, width, total.shape))

        across, down = corner + np.roll(corner, -1, 1), corner + np.roll(corner, -1, 0)
        middle = between(across + np.roll(across, -1, 0))
        field[half::step, half::step] = middle
        field[::step, half::step] = between(across + middle + np.roll(middle, 1, 0))
        field[half::step, ::step] = between(down + middle + np.roll(middle, 1, 1))
        step, width = half, width / decay
    return np.asarray(((field - field.min()) / np.ptp(field))[:side, :side])


def frost(image: np.ndarray, share: tuple[float, float], stream: np.random.Generator) -> np.ndarray:
    """The image and a frosted pane, each times a number.

    The published panes are photographs without a licence; here two plasmas make one of the same use: bright ridges, bluish.
    """
    own, ice = share
    side = image.shape[0]
    ridges = 1 - np.abs(2 * plasma(side, 2.0, stream) - 1)
    grain = plasma(side, 1.5, stream)
    pane = (0.25 + 0.5 * ridges**2 + 0.35 * ridges * grain)[..., None] * np.array([0.85, 0.93, 1.0])
    return np.asarray(own * image + ice * pane.clip(0, 1))


def snow(image: np.ndarray, flakes: tuple[float, ...], stream: np.random.Generator) -> np.ndarray:
    """Smeared bright flakes, and the same turned by 180 degrees, on a paler image.

    Parameters: mean, spread, zoom and threshold of the flakes; radius and sigma of the smear; share of the image's colours.
    """
    mean, spread, zoom, threshold, radius, sigma, share = flakes
    side = image.shape[0]
    layer = enlarge(stream.normal(mean, spread, (side, side, 1)), zoom)[..., 0]
    layer = np.floor(np.where(layer < threshold, 0, layer).clip(0, 1) * 255) / 255
    layer = smear(layer, radius, sigma, stream.uniform(-135, -45))[..., None]
    pale = np.maximum(image, (image @ GREY)[..., None] * 1.5 + 0.5)
    return np.asarray(share * image + (1 - share) * pale + layer + np.rot90(layer, 2))


def spatter(image: np.ndarray, drops: tuple[float, ...], stream: np.random.Generator) -> np.ndarray:
    """Drops of water or of mud on the lens: mean, spread, sigma, threshold, strength (mud: sigma of the rim), 1 for mud."""
    mean, spread, sigma, threshold, strength, mud = drops
    side = image.shape[0]
    liquid = gaussian(stream.normal(mean, spread, (side, side)), sigma)
    if mud:
        cover = gaussian((liquid > threshold).astype(np.float64), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return np.asarray(image * (1 - cover) + MUD * cover)
    liquid = np.floor(np.where(liquid < threshold, 0, liquid).clip(0, 1) * 255)
    shine = liquid * _relief(liquid)
    return np.asarray(image + strength * (shine / max(shine.max(), 1e-12))[..., None] * WATER)


def _relief(liquid: np.ndarray) -> np.ndarray:
    """Light on the drops: distance to the nearest edge, at most 20 pixels, equalised and embossed, 0 to 255.

    Edges are where the Sobel slope exceeds 50 and is connected to one above 150; the released code (Canny) thins them as well.
    """
    slope = np.abs(ndimage.sobel(liquid, 0)) + np.abs(ndimage.sobel(liquid, 1))
    edges = ndimage.binary_propagation(slope > 150, np.ones((3, 3), dtype=bool), slope > 50)
    distance = ndimage.distance_transform_edt(~edges) if edges.any() else np.full(liquid.shape, 20.0)
    levels = np.floor(_box(distance.clip(max=20)).clip(0)).astype(np.int64)
    counts = np.bincount(levels.ravel(), minlength=21).cumsum()
    lowest = counts[levels.min()]
    equal = np.rint((counts - lowest) / max(levels.size - lowest, 1) * 255)[levels]
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    return _box(ndimage.correlate(equal, emboss, mode="mirror").clip(0, 255))


def _box(field: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.uniform_filter(field, 3, mode="mirror"))
