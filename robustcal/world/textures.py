"""The five textures, as the share of a second paint at each pixel, and that second paint."""

from __future__ import annotations

import numpy as np

from .attributes import COLORS, TEXTURES

_f = np.float32
#: Second paint = paint * factor + offset. Light colours are darkened, dark ones lightened; white, gray and black keep
#: apart from one another in both paints.
_DARKER, _LIGHTER = (0.22, 0.0), (0.35, 0.65)
_SECOND = {"blue": _LIGHTER, "purple": _LIGHTER, "white": (0.55, 0.0), "gray": (0.18, 0.0), "black": (0.35, 0.36)}
_SECOND_TABLE = np.array([_SECOND.get(name, _DARKER) for name in COLORS], np.float32)


def second_paint(color: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """The other colour of a texture: colours (n,) and paints (n, 3) -> (n, 3)."""
    return paint * _SECOND_TABLE[color, :1] + _SECOND_TABLE[color, 1:]


def pattern_share(
    texture: np.ndarray, across: np.ndarray, down: np.ndarray, scale: np.ndarray, period: np.ndarray,
    phase: np.ndarray, slant: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Share of the second paint at each pixel, in [0, 1]: (n, 32, 32); zero where the texture is solid.

    A period is at least five pixels, so that no texture is lost between pixels; edges are one pixel wide.

    Args:
        texture: (n,) indices of `TEXTURES`.
        across, down: (n, 32, 32) coordinates in the frame of the outline, which fills [-1, 1].
        scale: (n, 1, 1) pixels per unit of that frame.
        period: (n, 1) in units of the frame.
        phase: (n, 2) in [0, 1]; slant: (n, 2) in [-1, 1], lean of the stripes, direction of the shading.
    """
    period = np.maximum(period[:, :, None], _f(5) / scale)
    phase = phase[:, :, None, None]
    out = np.zeros_like(across)
    for name, draw in {"striped": _stripes, "dotted": _dots, "checkered": _checks}.items():
        rows = np.flatnonzero(texture == TEXTURES.index(name))
        edge = period[rows] * scale[rows]  # pixels per period: what makes an edge one pixel wide
        s, t = across[rows] / period[rows], down[rows] / period[rows]
        out[rows] = draw(s + phase[rows, 0], t + phase[rows, 1], slant[rows], edge)
    rows = np.flatnonzero(texture == TEXTURES.index("shaded"))
    out[rows] = _shading(across[rows], down[rows], slant[rows])
    return out


_ONE = _f(1)


def ramp(value: np.ndarray, threshold: np.float32, slope: np.ndarray | np.float32 = _ONE) -> np.ndarray:
    """An anti-aliased step: 0.5 where `value` is `threshold`, rising by `slope` per unit, within [0, 1]."""
    value = (value - threshold) * slope
    value += _f(0.5)
    return np.clip(value, 0, 1, out=value)


def _wave(s: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1: 0 at the integers, 0.5 half-way."""
    found: np.ndarray = _f(0.5) - abs(s - np.floor(s) - _f(0.5))
    return found


def _stripes(s: np.ndarray, t: np.ndarray, slant: np.ndarray, edge: np.ndarray) -> np.ndarray:
    lean, steep = slant[:, 0, None, None], (slant[:, 1] > 0)[:, None, None]
    return ramp(_wave(np.where(steep, s + lean * t, t + lean * s)), _f(0.29), edge)


def _dots(s: np.ndarray, t: np.ndarray, slant: np.ndarray, edge: np.ndarray) -> np.ndarray:
    dx, dy = _f(0.5) - _wave(s), _f(0.5) - _wave(t)
    return ramp(_f(0.32) - np.sqrt(dx * dx + dy * dy), _f(0), edge)


def _checks(s: np.ndarray, t: np.ndarray, slant: np.ndarray, edge: np.ndarray) -> np.ndarray:
    a = np.clip((_wave(s * _f(0.7)) - _f(0.25)) * edge * _f(2), -1, 1)
    b = np.clip((_wave(t * _f(0.7)) - _f(0.25)) * edge * _f(2), -1, 1)
    found: np.ndarray = a * b * _f(0.5) + _f(0.5)
    return found


def _shading(across: np.ndarray, down: np.ndarray, slant: np.ndarray) -> np.ndarray:
    """From one corner of the outline to the opposite one."""
    sign = np.where(slant > 0, _f(0.45), _f(-0.45))[:, :, None, None]
    found: np.ndarray = np.clip(_f(0.42) + sign[:, 0] * across + sign[:, 1] * down, 0, _f(0.95))
    return found
