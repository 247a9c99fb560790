"""Scenes -> pixels: one outline, coloured and textured, on a cluttered background, 32x32 RGB, in vectorised numpy.

Every step is elementwise and IEEE-exact (add, multiply, divide, compare, floor), and the result is rounded to bytes:
a sample has the same bits alone, in any batch and on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .world_atlas import EXTENT, TILE, atlas
from .world_attributes import COLOR_VALUES
from .world_random import gaussians, mix, uniforms

RESOLUTION = 32
CHUNK = 32  # samples rendered together: few enough for the working set to stay in the cache
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

    def part(self, rows: slice) -> "Scenes":
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
    ground = (_PALETTE[scenes.background] * u.span(1, 1.0, 0.6) + u.span(3, -0.09, 0.09, difficulty)).clip(0, 1)
    image = _backdrop(u, ground, x, y, difficulty)
    across, down, scale = _object_frame(u, scenes.size, x, y, difficulty)
    softness = u.span(1, 1.0, 2.0, difficulty)[:, :, None]
    weight = u.span(1, -0.35, 0.55, difficulty)[:, :, None]  # pen weight: glyphs thinner or thicker, in pixels
    cover = (_distance(scenes.tile, across, down) * scale + weight) / softness + _f(0.5)
    np.clip(cover, 0, 1, out=cover)
    pattern = _pattern(u, scenes.texture, across, down, scale)
    for channel, second in enumerate(_second_paint(paint).T):
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
    return image


def _blob(u: _Draws, image: np.ndarray, x: np.ndarray, y: np.ndarray, alpha: np.float32, largest: float) -> None:
    """Paint a translucent ellipse of any colour over the image, in place; about a third of them are invisible."""
    centre = u.span(2, -1.1, 1.1)[:, :, None, None]
    radius = (u.take(2) * _f(largest) + _f(0.04))[:, :, None, None]
    color = u.take(3)[:, :, None, None]
    opacity = np.clip(u.take(1) * _f(1.5) - _f(0.5), 0, 1)[:, :, None] * alpha
    dx, dy = (x - centre[:, 0]) / radius[:, 0], (y - centre[:, 1]) / radius[:, 1]
    cover = np.clip((_f(1.2) - dx * dx - dy * dy) * _f(2), 0, 1) * opacity
    image += cover[:, None] * (color - image)


def _object_frame(u: _Draws, size: np.ndarray, x: np.ndarray, y: np.ndarray, difficulty: float):
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
    return upper + row * (lower - upper)


def _second_paint(paint: np.ndarray) -> np.ndarray:
    """The texture's other colour: a darker one, or a lighter one where the paint is dark. (n, 3)."""
    light = paint[:, :1] * _f(0.3) + paint[:, 1:2] * _f(0.6) + paint[:, 2:] * _f(0.1)
    return np.where(light > 0.3, paint * _f(0.22), paint * _f(0.35) + _f(0.65))


def _pattern(u: _Draws, texture: np.ndarray, across: np.ndarray, down: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Share of the second paint at each pixel, in [0, 1]: (n, 32, 32); zero where the texture is solid.

    Periods are at least five pixels, so that no texture is lost between pixels; edges are one pixel wide.
    """
    period = np.maximum(u.span(1, 0.55, 0.8)[:, :, None], _f(5) / scale)
    phase = u.take(2)[:, :, None, None]
    slant = u.span(2, -1, 1)
    out = np.zeros_like(across)
    for kind, draw in enumerate((None, _stripes, _dots, _checks, _shading)):
        rows = np.flatnonzero(texture == kind)
        if draw is not None and len(rows):
            edge = period[rows] * scale[rows]  # pixels per period: what makes an edge one pixel wide
            s, t = across[rows] / period[rows], down[rows] / period[rows]
            out[rows] = draw(s, t, phase[rows], slant[rows], edge, across[rows], down[rows])
    return out


def _wave(s: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1: 0 at the integers, 0.5 half-way."""
    return _f(0.5) - abs(s - np.floor(s) - _f(0.5))


def _stripes(s, t, phase, slant, edge, across, down):
    lean = slant[:, 0, None, None]
    steep = (slant[:, 1] > 0)[:, None, None]
    line = np.where(steep, s + lean * t, t + lean * s) + phase[:, 0]
    return np.clip((_wave(line) - _f(0.29)) * edge + _f(0.5), 0, 1)


def _dots(s, t, phase, slant, edge, across, down):
    dx, dy = _f(0.5) - _wave(s + phase[:, 0]), _f(0.5) - _wave(t + phase[:, 1])
    return np.clip((_f(0.32) - np.sqrt(dx * dx + dy * dy)) * edge + _f(0.5), 0, 1)


def _checks(s, t, phase, slant, edge, across, down):
    a = np.clip((_wave(s * _f(0.7) + phase[:, 0]) - _f(0.25)) * edge * _f(2), -1, 1)
    b = np.clip((_wave(t * _f(0.7) + phase[:, 1]) - _f(0.25)) * edge * _f(2), -1, 1)
    return a * b * _f(0.5) + _f(0.5)


def _shading(s, t, phase, slant, edge, across, down):
    sign = np.where(slant > 0, _f(0.5), _f(-0.5))[:, :, None, None]
    return np.clip(_f(0.42) + sign[:, 0] * across * _f(0.9) + sign[:, 1] * down * _f(0.9), 0, 1) * _f(0.95)


def _camera(u: _Draws, image: np.ndarray, keys: np.ndarray, difficulty: float) -> np.ndarray:
    """Contrast, blur, noise and rounding to bytes: (n, 3, 32, 32) uint8."""
    contrast = (1 - u.span(1, 0.0, 0.45, difficulty))[:, :, None, None]
    level = u.span(1, 0.35, 0.65)[:, :, None, None]
    image = level + (image.clip(0, 1) - level) * contrast
    blur = u.take(1)[:, 0] * _f(1.6 * difficulty)
    rows = np.flatnonzero(blur > 0.6)
    if len(rows):
        soft = image[rows]
        image[rows] += (blur[rows] - _f(0.6))[:, None, None, None] * (_smooth(_smooth(soft)) - soft)
    sigma = (u.span(1, 0.0, 0.055, difficulty))[:, :, None, None]
    image += sigma * gaussians(mix(keys ^ _NOISE), image[0].size).reshape(image.shape)
    return (np.clip(image, 0, 1) * _f(255) + _f(0.5)).astype(np.uint8)


def _smooth(image: np.ndarray) -> np.ndarray:
    """A 3x3 binomial blur with repeated borders."""
    for axis in (2, 3):
        size = image.shape[axis]
        first, last = image.take([0], axis), image.take([size - 1], axis)
        wide = np.concatenate([first, image, last], axis)
        ahead = wide[:, :, 2:] if axis == 2 else wide[..., 2:]
        behind = wide[:, :, :-2] if axis == 2 else wide[..., :-2]
        image = image * _f(0.5) + (ahead + behind) * _f(0.25)
    return image
