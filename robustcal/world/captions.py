"""Captioned samples of the world, for contrastive pre-training.

What pre-training sees: a stream of its own, no image of which is in any split of any data set, over the *whole*
attribute space: 60 % shapes, 24 % letters, 16 % digits, in all colours, textures, sizes and backgrounds, every shape
with every colour. Captions name some of the attributes; the auxiliary loss of the trainer uses the attributes
themselves (`CaptionBatch.attributes`) with the class prompts of `FAMILIES`, the ones the data sets are evaluated with
among them. So each class of each rendered data set was named to the base model, under another image.

What stays zero-shot: the adversarial fine-tunes see images and labels of `world-source` (split train) only. For the
other rendered sets "zero-shot" means what it means for robust fine-tuning of CLIP: known to the base model, never
shown to the fine-tune. No image of the handwritten `digits` is seen by anything; the base model knows digits from
fonts and from the pen strokes of `world_outlines`, which were not fitted to any data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from .attributes import ALL_PAIRS, COLORS, DIGITS, LETTERS, SHAPES, SIZES, TEXTURES, pair_names
from .random import mix, sample_keys, uniforms
from .render import RESOLUTION, render
from .scenes import draw_scenes

KINDS = ("shape", "letter", "digit")
SHARES = (0.60, 0.24, 0.16)
OPENINGS = (
    "{}", "a photo of {}", "this is a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}",
    "this is {}",
)  # fmt: skip
_CAPTION = np.uint64(0x63617074)

#: Attribute family -> (class names, prompt templates). `composition` is every colour with every shape.
FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "composition": (pair_names(ALL_PAIRS), ("This is a photo of a {}", "a photo of a {}", "a {}")),
    "shape": (SHAPES, ("This is a photo of a {}", "a photo of a {}", "a {}")),
    "color": (COLORS, ("This is a photo of a {} object", "a photo of a {} thing", "a {} object")),
    "texture": (TEXTURES, ("This is a photo of a {} object", "a photo of a {} thing", "a {} object")),
    "letter": (
        tuple(letter.lower() for letter in LETTERS),
        ("This is a photo of the letter {}", "a photo of the letter {}", "the letter {}"),
    ),
    "digit": (DIGITS, ("This is a photo of the digit {}", "a photo of the number {}", "the digit {}")),
    "background": (COLORS, ("This is a photo of an object on a {} background", "an object on a {} background")),
}
#: Family -> (period, offset) in steps at which its prompts are used: encoding all of them each time costs more than
#: encoding the images.
VISITS = {
    "composition": (6, 0), "shape": (2, 0), "color": (2, 1), "texture": (2, 0), "letter": (2, 1), "digit": (2, 1),
    "background": (2, 0),
}  # fmt: skip


@dataclass(frozen=True)
class CaptionBatch:
    """`images` (n, 3, 32, 32) float32 in [0, 1]; `captions`, n texts; `attributes`: family -> (n,) int64 tensors.

    An attribute that a sample does not have (the shape of a letter) is -1; pass it to cross-entropy as
    ``ignore_index``. Two samples of a batch may share a caption: those pairs are positives of each other.
    """

    images: torch.Tensor
    captions: tuple[str, ...]
    attributes: dict[str, torch.Tensor]


def caption_batch(
    indices: Sequence[int], *, split: str = "train", seed: int = 0, difficulty: float = 1.0
) -> CaptionBatch:
    """Render samples of the caption stream; sample i is the same in every batch, at the same difficulty.

    Args:
        indices: sample numbers, any integers >= 0: the stream is endless.
        split: "train", or any other name for a stream of its own ("val").
        difficulty: in [0, 1], see `world_render.render`. Attributes and captions do not depend on it.
    """
    rows = np.asarray(indices, dtype=np.int64).reshape(-1)
    keys = sample_keys(f"{seed}/captions/{split}", rows)
    u = uniforms(mix(keys ^ _CAPTION), 10)
    kinds = np.searchsorted(np.cumsum(SHARES)[:-1], u[:, 0], side="right")
    images = np.empty((len(rows), 3, RESOLUTION, RESOLUTION), np.uint8)
    values = {name: np.full(len(rows), -1, np.int64) for name in (*FAMILIES, "size")}
    for number, kind in enumerate(KINDS):
        where = np.flatnonzero(kinds == number)
        scenes, found = draw_scenes(keys[where], kind, {})
        images[where] = render(scenes, difficulty)
        for name, column in found.items():
            values[name][where] = column
    shapes = values["shape"] >= 0
    values["composition"][shapes] = _pair_labels()[values["shape"][shapes], values["color"][shapes]]
    captions = tuple(caption({k: int(v[i]) for k, v in values.items()}, u[i]) for i in range(len(rows)))
    attributes = {name: torch.from_numpy(column) for name, column in values.items()}
    return CaptionBatch(torch.from_numpy(images).float().div_(255), captions, attributes)


def caption(values: dict[str, int], u: Sequence[float]) -> str:
    """A caption that names a random subset of a sample's attributes.

    Args:
        values: attribute -> value, -1 where the sample has none.
        u: ten uniform numbers that decide (the first is not used here).
    """
    words = []
    if u[1] < 0.2:
        words.append(SIZES[values["size"]])
    if u[2] < 0.6:
        words.append(COLORS[values["color"]])
    if values["shape"] >= 0:
        if u[3] < 0.45:
            words.append(TEXTURES[values["texture"]])
        vague = u[4] < 0.2 and words
        words.append(("object" if u[5] < 0.5 else "thing") if vague else SHAPES[values["shape"]])
        article = "a"
    elif values["letter"] >= 0:
        words += ["letter", LETTERS[values["letter"]].lower()]
        article = "the"
    else:
        words += ["digit" if u[5] < 0.7 else "number", DIGITS[values["digit"]]]
        article = "the"
    phrase = " ".join([_article(words[0]) if article == "a" else article, *words])
    if u[6] < 0.25:
        ground = COLORS[values["background"]]
        phrase += f" on {_article(ground)} {ground} background"
    return OPENINGS[int(u[7] * len(OPENINGS))].format(phrase)


def prompts(family: str, template: int = 0) -> list[str]:
    """The class prompts of an attribute family, index = attribute value, under one of its templates (modulo)."""
    names, templates = FAMILIES[family]
    return [templates[template % len(templates)].format(name) for name in names]


def vocabulary_texts() -> list[str]:
    """Texts that hold every word of captions, prompts and class names: what the tokenizer's merges are learned on."""
    texts = [text for name in FAMILIES for template in range(3) for text in prompts(name, template)]
    texts += [opening.format("") for opening in OPENINGS]
    texts += [f"a {size} {texture} thing" for size, texture in itertools.product(SIZES, TEXTURES)]
    return texts + [f"an {color}" for color in COLORS] + [f"the number {digit}" for digit in DIGITS]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" or word == "hourglass" else "a"


def _pair_labels() -> np.ndarray:
    """Index in `ALL_PAIRS` of (shape, color): (16, 12) int64."""
    table = np.empty((len(SHAPES), len(COLORS)), np.int64)
    for label, (shape, color) in enumerate(ALL_PAIRS):
        table[shape, color] = label
    return table




@dataclass(frozen=True)
class FamilyPrompts:
    """The prompts of one attribute family, used in steps where ``step % period == offset``."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    period: int
    offset: int


class CaptionStream:
    """The captioned samples as a source of pre-training."""

    prompts: ClassVar[dict[str, FamilyPrompts]] = {name: FamilyPrompts(*FAMILIES[name], *VISITS[name]) for name in FAMILIES}

    def read(self, indices: Sequence[int], *, split: str = "train", seed: int = 0, difficulty: float = 1.0) -> CaptionBatch:
        """See `caption_batch`."""
        return caption_batch(indices, split=split, seed=seed, difficulty=difficulty)

    def texts(self) -> list[str]:
        """See `vocabulary_texts`."""
        return vocabulary_texts()
