"""Scenes -> pixels: one outline, coloured and textured, on a cluttered background, 32x32 RGB, in vectorised numpy.

Every step is elementwise and IEEE-exact (add, multiply, divide, compare, floor), and the result is rounded to bytes:
a sample has the same bits alone, in any batch and on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .atlas import EXTENT, TILE, atlas
from .attributes import COLOR_VALUES
from .random import gaussians, mix, uniforms
from .textures import pattern_share, ramp, second_paint

RESOLUTION = 32
CHUNK = 64  # samples rendered together: few enough for the working set to stay in the cache
_NOISE = np.uint64(0x6E6F697365)
_f = np.float32
_PALETTE = np.array(list(COLOR_VALUES.values()), np.float32)


@dataclass(frozen=True)
class Scenes:
    """What is in each image: five integer arrays of length n, and the samples' 64-bit keys for everything else.

    `tile`: outline in the atlas; `color` and `background`: indices of `COLORS`; `texture`: index of `TEXTURES`;
    `size`: 0 small, 1 medium, 2 large.
    """

    keys: np.ndarray
    tile: np.ndarray
    color: np.ndarray
    texture: np.ndarray
    background: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: slice) -> Scenes:
        return Scenes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def render(scenes: Scenes, difficulty: float = 1.0) -> np.ndarray:
    """Draw the scenes: (n, 3, 32, 32) uint8.

    Args:
        difficulty: in [0, 1]; scales rotation, shear, elastic warp, clutter, blur, noise, colour jitter, loss of
            contrast and displacement. Data sets are rendered at 1.
    """
    out = np.empty((len(scenes), 3, RESOLUTION, RESOLUTION), np.uint8)
    for start in range(0, len(scenes), CHUNK):
        rows = slice(start, start + CHUNK)
        out[rows] = _render(scenes.part(rows), float(difficulty))
    return out


def _render(scenes: Scenes, difficulty: float) -> np.ndarray:
    u = _Draws(scenes.keys)
    x, y = _warped_grid(u, difficulty)
    paint = (_PALETTE[scenes.color] + u.span(3, -0.09, 0.09, difficulty)).clip(0, 1)
    ground = (_PALETTE[scenes.background] * u.span(1, 0.78, 1.0) + u.span(3, -0.09, 0.09, difficulty)).clip(0, 1)
    image = _backdrop(u, ground, x, y, difficulty)
    across, down, scale = _object_frame(u, scenes.size, x, y, difficulty)
    softness = u.span(1, 1.0, 2.0, difficulty)[:, :, None]
    weight = u.span(1, -0.03, 0.06, difficulty)[:, :, None]  # of the pen: glyphs thinner or thicker
    cover = ramp((_distance(scenes.tile, across, down) + weight) * (scale / softness), _f(0))
    pattern = pattern_share(scenes.texture, across, down, scale, u.span(1, 0.55, 0.8), u.take(2), u.span(2, -1, 1))
    for channel, second in enumerate(second_paint(scenes.color, paint).T):
        first = paint[:, channel, None, None]
        layer = image[:, channel]
        layer += cover * (first + pattern * (second[:, None, None] - first) - layer)
    _blob(u, image, x, y, alpha=_f(0.6 * difficulty), largest=0.2)
    return _camera(u, image, scenes.keys, difficulty)


class _Draws:
    """Hands out each sample's uniform numbers, always in the same order."""

    def __init__(self, keys: np.ndarray, count: int = 96):
        self.numbers, self.used = uniforms(keys, count).astype(np.float32), 0

    def take(self, count: int) -> np.ndarray:
        """The next `count` numbers in [0, 1]: (n, count) float32."""
        self.used += count
        return self.numbers[:, self.used - count : self.used]

    def span(self, count: int, low: float, high: float, strength: float = 1.0) -> np.ndarray:
        """Numbers in [low, high]; `strength` 0 gives the value nearest to no effect (0 if inside, else `low`)."""
        rest = min(max(low, 0.0), high)
        low, high = rest + (low - rest) * strength, rest + (high - rest) * strength
        return self.take(count) * _f(high - low) + _f(low)


@lru_cache(maxsize=1)
def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel centres in [-1, 1] as a row and a column, and smooth weights of four knots along an axis (4, 32)."""
    axis = ((np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1).astype(np.float32)
    knots = (axis + 1) * _f(1.5)
    hat = np.clip(1 - abs(knots - np.arange(4, dtype=np.float32)[:, None]), 0, 1)
    return axis[None, None, :], axis[None, :, None], hat * hat * (3 - 2 * hat)


def _warped_grid(u: _Draws, difficulty: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates after an elastic displacement: two (n, 32, 32) float32, x to the right and y downwards."""
    x, y, hat = _grid()
    moved = []
    for axis in (x, y):
        knots = u.span(16, -0.1, 0.1, difficulty).reshape(-1, 4, 4)
        rows = sum(knots[:, :, j, None] * hat[j] for j in range(4))  # (n, 4, 32)
        moved.append(axis + sum(rows[:, i, None, :] * hat[i][:, None] for i in range(4)))
    return moved[0], moved[1]


def _backdrop(u: _Draws, ground: np.ndarray, x: np.ndarray, y: np.ndarray, difficulty: float) -> np.ndarray:
    """A shaded ground with two blobs of clutter: (n, 3, 32, 32)."""
    slope = u.span(2, -0.2, 0.2, difficulty)
    shade = slope[:, 0, None, None] * x + slope[:, 1, None, None] * y
    image = ground[:, :, None, None] + shade[:, None]
    for _ in range(2):
        _blob(u, image, x, y, alpha=_f(0.75 * difficulty), largest=0.42)
    found: np.ndarray = image
    return found


def _blob(u: _Draws, image: np.ndarray, x: np.ndarray, y: np.ndarray, alpha: np.float32, largest: float) -> None:
    """Paint a translucent ellipse of any colour over two thirds of the images, in place."""
    centre, radius, color = u.span(2, -1.1, 1.1), u.take(2) * _f(largest) + _f(0.04), u.take(3)
    opacity = (u.take(1)[:, 0] * _f(1.5) - _f(0.5)) * alpha
    rows = np.flatnonzero(opacity > 0)
    dx = (x[rows] - centre[rows, 0, None, None]) / radius[rows, 0, None, None]
    dy = (y[rows] - centre[rows, 1, None, None]) / radius[rows, 1, None, None]
    cover = ramp(_f(0.95) - dx * dx - dy * dy, _f(0), _f(2)) * opacity[rows, None, None]
    for channel in range(3):
        layer = image[rows, channel]
        image[rows, channel] = layer + cover * (color[rows, channel, None, None] - layer)


def _object_frame(
    u: _Draws, size: np.ndarray, x: np.ndarray, y: np.ndarray, difficulty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates in the outline's own frame, (n, 32, 32) twice, and its half size in pixels, (n, 1, 1).

    Half sizes: small 0.36-0.48 of half the image, medium 0.52-0.64, large 0.68-0.84.
    """
    low = np.array([0.36, 0.52, 0.68], np.float32)[size]
    half = low + u.take(1)[:, 0] * np.array([0.12, 0.12, 0.16], np.float32)[size]
    room = np.maximum(_f(0.96) - half, _f(0.06))[:, None]
    centre = u.span(2, -1, 1, difficulty) * room
    # t is the tangent of half the angle: +-20 degrees, without a trigonometric function.
    t = u.span(1, -0.1763, 0.1763, difficulty)[:, 0]
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    shear = u.span(1, -0.22, 0.22, difficulty)[:, 0]
    stretch = 1 + u.span(1, -0.14, 0.14, difficulty)[:, 0]
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    along, athwart = (cosine / (half * stretch)), (sine / (half * stretch))
    across = dx * along[:, None, None] + dy * athwart[:, None, None]
    down = dy * (cosine / half)[:, None, None] - dx * (sine / half)[:, None, None]
    across += down * shear[:, None, None]
    return across, down, (half * _f(RESOLUTION / 2))[:, None, None]


def _distance(tile: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Signed distance to the outline in its own units, bilinear in the atlas: (n, 32, 32)."""
    field, unit = atlas(), _f(TILE / (2 * EXTENT))
    column = np.clip((across + _f(EXTENT)) * unit - _f(0.5), 0, _f(TILE - 1.001))
    row = np.clip((down + _f(EXTENT)) * unit - _f(0.5), 0, _f(TILE - 1.001))
    left, top = column.astype(np.int32), row.astype(np.int32)
    column -= left
    row -= top
    corner = top * np.int32(TILE) + left + (tile.astype(np.int32) * np.int32(TILE * TILE))[:, None, None]
    a, c = field[corner], field[corner + np.int32(TILE)]
    upper = a + column * (field[corner + np.int32(1)] - a)
    lower = c + column * (field[corner + np.int32(TILE + 1)] - c)
    found: np.ndarray = upper + row * (lower - upper)
    return found


def _camera(u: _Draws, image: np.ndarray, keys: np.ndarray, difficulty: float) -> np.ndarray:
    """Contrast, blur, noise and rounding to bytes: (n, 3, 32, 32) uint8."""
    contrast = (1 - u.span(1, 0.0, 0.42, difficulty))[:, :, None, None]
    level = u.span(1, 0.35, 0.65)[:, :, None, None]
    image = level + (image.clip(0, 1) - level) * contrast
    blur = u.take(1)[:, 0] * _f(1.6 * difficulty) - _f(0.6)  # share of the blurred image in the result
    rows = np.flatnonzero(blur > 0)
    sharp = image[rows]
    image[rows] = sharp + blur[rows, None, None, None] * (_smooth(sharp) - sharp)
    sigma = (u.span(1, 0.0, 0.055, difficulty))[:, :, None, None]
    image += sigma * gaussians(mix(keys ^ _NOISE), image[0].size).reshape(image.shape)
    found: np.ndarray = (np.clip(image, 0, 1) * _f(255) + _f(0.5)).astype(np.uint8)
    return found


def _smooth(image: np.ndarray) -> np.ndarray:
    """Binomial blur, weights 1 4 6 4 1 along both axes, with repeated borders."""
    wide = np.pad(image, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    n = RESOLUTION
    tall = [wide[:, :, i : i + n] for i in range(5)]
    wide = tall[2] * _f(0.375) + (tall[1] + tall[3]) * _f(0.25) + (tall[0] + tall[4]) * _f(0.0625)
    taps = [wide[:, :, :, i : i + n] for i in range(5)]
    found: np.ndarray = taps[2] * _f(0.375) + (taps[1] + taps[3]) * _f(0.25) + (taps[0] + taps[4]) * _f(0.0625)
    return found
