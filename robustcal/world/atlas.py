"""The outlines the world is drawn from: signed distance fields of 16 shapes, 26 letters and 10 digits in one picture.

``atlas.png`` holds one tile per outline; grey 128 is the edge, lighter is inside. It is bundled, so that the
pixels of the world depend neither on the installed fonts nor on the font rasteriser. Rebuild it with
``python -c "from robustcal.world.atlas import build; build()"``.

Letters and digits come from six DejaVu fonts (those that ship with matplotlib); digits also in three hands of our
own, polylines drawn with a round pen.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from .attributes import DIGITS, LETTERS, SHAPES

PATH = Path(__file__).with_name("atlas.png")
TILE = 48  #: side of a tile in pixels
EXTENT = 1.4  #: a tile spans [-EXTENT, EXTENT] in both directions; an outline fills [-1, 1]
REACH = 0.4  #: distances are clipped to [-REACH, REACH]; positive inside
COLUMNS = 16
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono",
)  # fmt: skip
HANDS = 3
DIGIT_STYLES = len(FONTS) + HANDS
FIRST_LETTER = len(SHAPES)
FIRST_DIGIT = FIRST_LETTER + len(LETTERS) * len(FONTS)
TILES = FIRST_DIGIT + len(DIGITS) * DIGIT_STYLES
_FINE = TILE * 8  # side at which outlines are rasterised before distances are measured


@lru_cache(maxsize=1)
def atlas() -> np.ndarray:
    """Signed distances in outline units, clipped to REACH: (TILES * TILE * TILE,) float32, tile after tile."""
    from PIL import Image

    sheet = np.asarray(Image.open(PATH))
    tiles = sheet.reshape(-1, TILE, COLUMNS, TILE).transpose(0, 2, 1, 3).reshape(-1, TILE, TILE)[:TILES]
    return ((tiles.astype(np.float32) - np.float32(128)) * np.float32(REACH / 127)).reshape(-1)


def build(path: Path = PATH) -> None:
    """Draw every outline and write the atlas as a grey PNG."""
    from PIL import Image

    from .outlines import glyph, hand_digit, shape

    masks = [shape(name, _grid()) for name in SHAPES]
    masks += [glyph(letter, font, _grid()) for letter in LETTERS for font in FONTS]
    for value in range(10):
        masks += [glyph(str(value), font, _grid()) for font in FONTS]
        masks += [hand_digit(value, hand, _grid()) for hand in range(HANDS)]
    tiles = np.stack([_distances(mask) for mask in masks])
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, TILE, TILE), np.uint8)
    sheet[: len(tiles)] = tiles
    picture = sheet.reshape(rows, COLUMNS, TILE, TILE).transpose(0, 2, 1, 3).reshape(rows * TILE, COLUMNS * TILE)
    Image.fromarray(picture).save(path, optimize=True)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x to the right, y downwards) of the centres of the fine pixels."""
    axis = ((np.arange(_FINE) + 0.5) / _FINE * 2 - 1) * EXTENT
    return np.meshgrid(axis, axis)


def _distances(mask: np.ndarray) -> np.ndarray:
    """Signed distance of a fine mask at the tile's pixels, as bytes: (TILE, TILE) uint8."""
    from scipy.ndimage import distance_transform_edt

    unit = 2 * EXTENT / _FINE
    signed = (distance_transform_edt(mask) - distance_transform_edt(~mask)) * unit
    step = _FINE // TILE
    signed = signed.reshape(TILE, step, TILE, step).mean(axis=(1, 3))
    found: np.ndarray = np.round(np.clip(signed / REACH, -1, 1) * 127 + 128).astype(np.uint8)
    return found
