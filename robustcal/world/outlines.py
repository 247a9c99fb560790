"""The outlines themselves, as masks on a fine grid: shapes by formula, glyphs by font, hand-drawn digits by pen."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

Grid = tuple[np.ndarray, np.ndarray]


def shape(name: str, grid: Grid) -> np.ndarray:
    """Mask of a named shape that fills [-1, 1] (y downwards): boolean, the shape of the grid."""
    x, y = grid
    radius = np.hypot(x, y)
    angle = np.arctan2(x, -y)  # zero at the top
    simple: dict[str, Callable[[], np.ndarray]] = {
        "circle": lambda: radius < 0.95,
        "square": lambda: np.maximum(abs(x), abs(y)) < 0.85,
        "cross": lambda: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
        "ring": lambda: (radius < 1) & (radius > 0.56),
        "crescent": lambda: (radius < 1) & (np.hypot(x - 0.5, y) > 0.78),
        "semicircle": lambda: (np.hypot(x, y - 0.5) < 1) & (y < 0.5),
        "oval": lambda: np.hypot(x, y / 0.58) < 1,
        "bar": lambda: (abs(x) < 1) & (abs(y) < 0.27),
        "heart": lambda: _heart(x * 1.12, -y * 1.12 + 0.14),
        "flower": lambda: radius < 0.7 + 0.3 * np.cos(6 * angle),
    }
    if name in simple:
        return simple[name]()
    return _polygon(_CORNERS[name], grid)


def _regular(corners: int, inner: float | None = None, size: float = 1.0) -> list[tuple[float, float]]:
    radii = [size] * corners if inner is None else [size, inner] * corners
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return [(r * np.sin(a), -r * np.cos(a)) for r, a in zip(radii, angles)]


_CORNERS: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0, -0.95), (1, 0.8), (-1, 0.8)],
    "star": _regular(5, inner=0.42, size=1.05),
    "pentagon": _regular(5),
    "diamond": [(0, -1), (0.66, 0), (0, 1), (-0.66, 0)],
    "hourglass": [(-0.8, -1), (0.8, -1), (0.14, 0), (0.8, 1), (-0.8, 1), (-0.14, 0)],
    "arrow": [(-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)],
}


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found: np.ndarray = (x * x + y * y - 0.82) ** 3 - 1.6 * x * x * y**3 < 0
    return found


def _polygon(corners: list[tuple[float, float]], grid: Grid) -> np.ndarray:
    """Mask of a simple polygon by the even-odd rule."""
    x, y = grid
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        if y0 == y1:
            continue
        crosses = (y < y0) != (y < y1)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def glyph(text: str, font: str, grid: Grid) -> np.ndarray:
    """Mask of a character of a DejaVu font, its bounding box scaled to fit [-1, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = f"{matplotlib.get_data_path()}/fonts/ttf/{font}.ttf"
    picture = Image.new("L", (1200, 1200))
    ImageDraw.Draw(picture).text((600, 600), text, fill=255, font=ImageFont.truetype(path, 640), anchor="mm")
    left, top, right, bottom = picture.getbbox() or (0, 0, 1, 1)  # None for an empty picture
    half = max(right - left, bottom - top) / 2
    pixels = np.asarray(picture) > 127
    columns = np.clip(np.round((left + right) / 2 + grid[0] * half), 0, 1199).astype(int)
    rows = np.clip(np.round((top + bottom) / 2 + grid[1] * half), 0, 1199).astype(int)
    found: np.ndarray = pixels[rows, columns]
    return found


def hand_digit(value: int, hand: int, grid: Grid) -> np.ndarray:
    """Mask of a digit drawn with a round pen in one of three hands: smooth curves through a few points."""
    x, y = grid
    distance = np.full(x.shape, np.inf)
    for stroke in _STROKES[value][hand]:
        points = _smooth(np.array(stroke, float))
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return distance < (0.15, 0.17, 0.13)[hand]


def _smooth(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through the points, sampled `steps` times per segment; a closed stroke stays closed."""
    if len(points) < 3:
        return points
    closed = np.allclose(points[0], points[-1])
    before = points[-2] if closed else 2 * points[0] - points[1]
    after = points[1] if closed else 2 * points[-1] - points[-2]
    p = np.vstack([before, points, after])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:])
    ]
    return np.vstack([*curve, points[-1:]])


def _circle(cx: float, cy: float, rx: float, ry: float, start: float = 0.0) -> list[tuple[float, float]]:
    """Eight points around an ellipse, closed, from an angle in turns (0 is the top, clockwise)."""
    turns = (start + np.arange(9) / 8) * 2 * np.pi
    return [(cx + rx * np.sin(a), cy - ry * np.cos(a)) for a in turns]


#: value -> three hands -> strokes -> points (x to the right, y downwards) within [-0.85, 0.85].
_STROKES: dict[int, list[list[list[tuple[float, float]]]]] = {
    0: [[_circle(0, 0, 0.55, 0.85)], [_circle(0, 0, 0.42, 0.85)], [_circle(0, 0, 0.7, 0.8, 0.06)]],
    1: [
        [[(0, -0.85), (0, 0.85)]],
        [[(-0.35, -0.45), (0.1, -0.85)], [(0.1, -0.85), (0.1, 0.85)]],
        [[(-0.35, -0.5), (0.05, -0.85)], [(0.05, -0.85), (0, 0.85)], [(-0.4, 0.85), (0.4, 0.85)]],
    ],
    2: [
        [[(-0.5, -0.5), (-0.1, -0.85), (0.45, -0.6), (0.3, -0.05), (-0.5, 0.8)], [(-0.5, 0.8), (0.6, 0.8)]],
        [
            [(-0.55, -0.6), (0, -0.85), (0.5, -0.5), (0.15, 0.15),
             (-0.45, 0.65), (-0.3, 0.85), (0.1, 0.65), (0.6, 0.8)],
        ],
        [[(-0.45, -0.75), (0.2, -0.85), (0.5, -0.4), (0, 0.3), (-0.55, 0.75)], [(-0.55, 0.75), (0.5, 0.85)]],
    ],
    3: [
        [
            [(-0.5, -0.7), (0, -0.85), (0.45, -0.5), (-0.05, -0.05)],
            [(-0.05, -0.05), (0.5, 0.35), (0, 0.85), (-0.5, 0.65)],
        ],
        [
            [(-0.5, -0.8), (0.5, -0.8)],
            [(0.5, -0.8), (-0.05, -0.1)],
            [(-0.05, -0.1), (0.55, 0.3), (0.1, 0.85), (-0.5, 0.7)],
        ],
        [
            [(-0.4, -0.8), (0.25, -0.75), (0.3, -0.3), (-0.2, -0.05)],
            [(-0.2, -0.05), (0.4, 0.2), (0.35, 0.7), (-0.4, 0.85)],
        ],
    ],
    4: [
        [[(0.2, -0.85), (-0.6, 0.25)], [(-0.6, 0.25), (0.6, 0.25)], [(0.25, -0.4), (0.25, 0.85)]],
        [[(-0.45, -0.8), (-0.5, -0.05)], [(-0.5, -0.05), (0.5, -0.05)], [(0.4, -0.8), (0.35, 0.85)]],
        [[(-0.1, -0.85), (-0.55, 0.05)], [(-0.55, 0.05), (0.55, 0.1)], [(0.35, -0.55), (0.1, 0.85)]],
    ],
    5: [
        [
            [(0.5, -0.8), (-0.4, -0.8)],
            [(-0.4, -0.8), (-0.45, -0.1)],
            [(-0.45, -0.1), (0.1, -0.25), (0.5, 0.2), (0.15, 0.8), (-0.5, 0.7)],
        ],
        [
            [(0.45, -0.85), (-0.3, -0.75)],
            [(-0.3, -0.75), (-0.4, -0.05)],
            [(-0.4, -0.05), (0.25, 0), (0.4, 0.5), (-0.1, 0.85), (-0.45, 0.75)],
        ],
        [
            [(0.6, -0.75), (-0.2, -0.8)],
            [(-0.2, -0.8), (-0.45, -0.2)],
            [(-0.45, -0.2), (0.2, -0.15), (0.4, 0.35), (-0.4, 0.85)],
        ],
    ],
    6: [
        [[(0.3, -0.85), (-0.3, -0.3), (-0.45, 0.35), (0, 0.85), (0.45, 0.4), (0, 0), (-0.42, 0.3)]],
        [[(0.05, -0.85), (-0.4, -0.1), (-0.35, 0.6), (0.1, 0.85), (0.45, 0.5), (0.1, 0.15), (-0.35, 0.45)]],
        [[(0.5, -0.75), (-0.15, -0.6), (-0.5, 0.2), (-0.1, 0.85), (0.45, 0.5), (0.2, 0.05), (-0.45, 0.3)]],
    ],
    7: [
        [[(-0.5, -0.8), (0.5, -0.8)], [(0.5, -0.8), (-0.15, 0.85)]],
        [[(-0.5, -0.75), (0.55, -0.8)], [(0.55, -0.8), (0, 0.85)], [(-0.2, 0.05), (0.5, 0.05)]],
        [[(-0.55, -0.5), (-0.45, -0.8), (0.5, -0.75)], [(0.5, -0.75), (0.05, 0), (-0.05, 0.85)]],
    ],
    8: [
        [_circle(0, -0.43, 0.38, 0.4), _circle(0, 0.42, 0.48, 0.43)],
        [
            [(0.4, -0.6), (0, -0.85), (-0.4, -0.5), (0.35, 0.4), (0, 0.85), (-0.4, 0.45), (0.35, -0.35), (0.4, -0.6)],
        ],
        [_circle(0.1, -0.45, 0.32, 0.38), _circle(-0.05, 0.38, 0.36, 0.45)],
    ],
    9: [
        [_circle(-0.02, -0.4, 0.42, 0.43), [(0.4, -0.4), (0.35, 0.3), (0, 0.85)]],
        [_circle(-0.05, -0.4, 0.4, 0.42), [(0.38, -0.8), (0.35, 0.85)]],
        [
            [(0.4, -0.45), (0, -0.85), (-0.45, -0.45), (0, -0.1), (0.4, -0.45), (0.35, 0.5),
             (-0.1, 0.85), (-0.45, 0.6)],
        ],
    ],
}  # fmt: skip
