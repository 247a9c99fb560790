"""A small rendered world of shapes, colours, textures, letters and digits, deterministic from a seed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..registry import register
from ..types import Batch, UserError
from ..world.attributes import COLORS, DIGITS, HELD_OUT_PAIRS, LETTERS, SHAPES, SOURCE_PAIRS, TEXTURES, pair_names
from ..world.random import balanced_labels, sample_keys
from ..world.render import RESOLUTION, Scenes, render
from ..world.scenes import draw_scenes
from .sides import at_side, check_side

if TYPE_CHECKING:
    from ..world.captions import CaptionStream

VERSION = 1  #: raise it when any pixel or label changes
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Subset:
    """One labelling of the world: its class names, and the attribute values that each label fixes."""

    classnames: tuple[str, ...]
    kind: str  #: what is drawn: "shape", "letter" or "digit"
    fixed: Callable[[np.ndarray], dict[str, np.ndarray]]  #: labels (n,) -> attribute -> values (n,)
    template: str = "This is a photo of a {}"


def _pairs(pairs: tuple[tuple[int, int], ...], labels: np.ndarray) -> dict[str, np.ndarray]:
    table = np.array(pairs)
    return {"shape": table[labels, 0], "color": table[labels, 1]}


def _single(attribute: str, labels: np.ndarray) -> dict[str, np.ndarray]:
    return {attribute: labels}


_OBJECT = "This is a photo of a {} object"
SUBSETS = {
    "source": Subset(pair_names(SOURCE_PAIRS), "shape", partial(_pairs, SOURCE_PAIRS)),
    "compositions": Subset(pair_names(HELD_OUT_PAIRS), "shape", partial(_pairs, HELD_OUT_PAIRS)),
    "shapes": Subset(SHAPES, "shape", partial(_single, "shape")),
    "colors": Subset(COLORS, "shape", partial(_single, "color"), _OBJECT),
    "textures": Subset(TEXTURES, "shape", partial(_single, "texture"), _OBJECT),
    "letters": Subset(
        tuple(letter.lower() for letter in LETTERS),
        "letter",
        partial(_single, "letter"),
        "This is a photo of the letter {}",
    ),
    "digits": Subset(DIGITS, "digit", partial(_single, "digit"), "This is a photo of the digit {}"),
}


@register.dataset
def world(
    *, variant: str | None = None, card: Mapping[str, Any] | None = None, split: str = "test", size: int = 2000, seed: int = 0,
    resolution: int = RESOLUTION,
) -> World:  # fmt: skip
    """The rendered world under one of its labellings: ``world:letters`` or the card ``world-letters``.

    The splits train, val and test are disjoint random streams; so are the pre-training captions. A stream is endless,
    `size` only says how much of it is used, and label and pixels of sample i do not depend on `size`.

    Args:
        resolution: side in pixels at which an attack may change the images; 32, or a multiple or divisor of it.

    Raises:
        UserError: unknown subset or split, a subset beside a card that has one, a size below 1, or a resolution
            that cannot be made.
    """
    subset = (card or {}).get("subset") or variant
    if variant and variant != subset:
        raise UserError(f"'world-{subset}:{variant}' names two subsets; write 'world:{variant}'")
    if subset not in SUBSETS:
        near = difflib.get_close_matches(str(subset), SUBSETS, n=1, cutoff=0.4)
        hint = f"did you mean 'world:{near[0]}'?" if near else f"write world: and one of {', '.join(SUBSETS)}"
        fault = f"the world has no subset '{subset}'" if subset else "'world' needs a subset"
        raise UserError(f"{fault}; {hint}")
    if split not in SPLITS:
        raise UserError(f"'world-{subset}' has no split '{split}'; there are: {', '.join(SPLITS)}")
    if size < 1:
        raise UserError(f"'world-{subset}' with size={size} has no samples; give size=1 or more")
    templates = tuple((card or {}).get("templates", (SUBSETS[subset].template,)))
    side = check_side(f"world-{subset}", resolution, RESOLUTION)
    return World(subset, split, int(size), int(seed), templates, resolution=side)


@dataclass
class World:
    """A rendered data set; labels come first and the pixels are drawn to them, so no label can be wrong."""

    subset: str
    split: str
    size: int
    seed: int
    templates: Sequence[str]
    task: str = "single"
    resolution: int = RESOLUTION
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"world-{self.subset}"
        self.classnames = SUBSETS[self.subset].classnames
        self.stream = f"{self.seed}/{self.subset}/{self.split}"
        self.labels = balanced_labels(self.stream, self.size, len(self.classnames))
        self.ids = [f"{self.name}/{self.split}/{index:05d}" for index in range(self.size)]
        text = f"world {VERSION} {self.stream} {self.classnames}"
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.size

    @property
    def caption_stream(self) -> CaptionStream:
        """Endless captioned samples for pre-training, whatever the subset."""
        from ..world.captions import CaptionStream

        return CaptionStream()

    def scenes(self, indices: np.ndarray) -> tuple[Scenes, dict[str, np.ndarray]]:
        """What these samples show, and their attribute values by name."""
        subset = SUBSETS[self.subset]
        return draw_scenes(sample_keys(self.stream, indices), subset.kind, subset.fixed(self.labels[indices]))

    def read(self, indices: Sequence[int], difficulty: float = 1.0) -> Batch:
        """Render these samples: images (n, 3, S, S) float32 in [0, 1]; at 32 pixels, multiples of 1/255."""
        import torch

        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        pixels = render(self.scenes(rows)[0], difficulty)
        images = at_side(torch.from_numpy(pixels).float().div_(255), self.resolution)
        return Batch(tuple(self.ids[i] for i in rows), images, torch.from_numpy(self.labels[rows]))
