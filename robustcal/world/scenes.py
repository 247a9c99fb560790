"""What a sample of the rendered world shows: every attribute that its label leaves open is drawn from the sample's key."""

from __future__ import annotations

import numpy as np

from . import atlas
from .attributes import COLORS, DIGITS, LETTERS, SHAPES, SIZES, TEXTURES
from .random import mix, uniforms
from .render import Scenes

_SCENE = np.uint64(0x7363656E65)


def draw_scenes(keys: np.ndarray, kind: str, fixed: dict[str, np.ndarray]) -> tuple[Scenes, dict[str, np.ndarray]]:
    """Fill in every attribute that is not fixed, from the samples' keys.

    Args:
        keys: (n,) uint64 sample keys.
        kind: "shape", "letter" or "digit".
        fixed: attribute -> values (n,).

    Returns:
        The scenes and all attribute values: kind's own name, color, texture, background, size, each (n,) int64.
    """
    u = uniforms(mix(keys ^ _SCENE), 8)
    choices = {"shape": len(SHAPES), "letter": len(LETTERS), "digit": len(DIGITS)}
    values = {
        kind: _pick(u[:, 0], choices[kind]),
        "color": _pick(u[:, 1], len(COLORS)),
        "texture": _pick(u[:, 2], len(TEXTURES)),
        "size": _pick(u[:, 3], len(SIZES)),
    }
    if kind != "shape":  # thin strokes carry no pattern: solid, or shaded one time in four
        values["texture"] = np.where(u[:, 2] < 0.75, 0, TEXTURES.index("shaded"))
    values.update(fixed)
    # The background is any other colour.
    values["background"] = (values["color"] + 1 + _pick(u[:, 4], len(COLORS) - 1)) % len(COLORS)
    if kind == "shape":
        tile = values["shape"]
    elif kind == "letter":
        tile = atlas.FIRST_LETTER + values["letter"] * len(atlas.FONTS) + _pick(u[:, 5], len(atlas.FONTS))
    else:
        tile = atlas.FIRST_DIGIT + values["digit"] * atlas.DIGIT_STYLES + _pick(u[:, 5], atlas.DIGIT_STYLES)
    scenes = Scenes(keys, tile, values["color"], values["texture"], values["background"], values["size"])
    return scenes, values


def _pick(u: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) -> integers in [0, count)."""
    return (u * count).astype(np.int64)
