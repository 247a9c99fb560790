"""What can be seen in the world: shapes, colours, textures, letters and digits, and which pairs the source holds."""

from __future__ import annotations

import string

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "arrow", "hourglass",
    "diamond", "pentagon", "semicircle", "oval", "bar", "flower",
)  # fmt: skip
#: sRGB in [0, 1].
COLOR_VALUES = {
    "red": (0.88, 0.10, 0.10),
    "orange": (0.97, 0.52, 0.05),
    "yellow": (0.96, 0.90, 0.10),
    "green": (0.12, 0.66, 0.16),
    "blue": (0.12, 0.20, 0.90),
    "purple": (0.52, 0.12, 0.66),
    "pink": (0.98, 0.56, 0.74),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.52, 0.52, 0.52),
    "black": (0.04, 0.04, 0.04),
    "cyan": (0.12, 0.86, 0.90),
    "brown": (0.46, 0.27, 0.10),
}
COLORS = tuple(COLOR_VALUES)
TEXTURES = ("solid", "striped", "dotted", "checkered", "shaded")
LETTERS = tuple(string.ascii_uppercase)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = ("small", "medium", "large")

#: The fine-tuning source pairs the first ten shapes with the first ten colours; every other pair is held out.
SOURCE_PAIRS = tuple((shape, color) for shape in range(10) for color in range(10))
HELD_OUT_PAIRS = tuple(
    (shape, color)
    for shape in range(len(SHAPES))
    for color in range(len(COLORS))
    if (shape, color) not in set(SOURCE_PAIRS)
)
ALL_PAIRS = SOURCE_PAIRS + HELD_OUT_PAIRS


def pair_names(pairs: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    """Class names such as ``red circle``."""
    return tuple(f"{COLORS[color]} {SHAPES[shape]}" for shape, color in pairs)
