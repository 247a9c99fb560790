"""What pre-training sees: captioned images from any data sets, each a `Source` found through the dataset registry.

A data set becomes a source in one of two ways. One that offers `caption_stream` renders or fetches endless samples
with captions of its own. Any other is read once into memory; its captions are its column `captions` where it offers
one (a text, or several, for each sample), else its class names in prompt templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..registry import datasets
from ..types import Dataset, UserError
from .augment import DRAWS, augment
from .cache import Cached, cached
from .schedule import held_out_split
from .settings import Pretrain

#: Uniform numbers that one sample may use: its augmentation, then its caption.
NUMBERS = DRAWS + 2


class Prompts(Protocol):
    """A set of classes whose prompts the loss compares images with, in steps where ``step % period == offset``."""

    @property
    def classnames(self) -> Sequence[str]: ...
    @property
    def templates(self) -> Sequence[str]: ...
    @property
    def period(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Captioned(Protocol):
    """Samples of a source: `images` (n, 3, S, S) in [0, 1], n captions, and per prompt set (n,) labels, -1 for none."""

    @property
    def images(self) -> Tensor: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> Mapping[str, Tensor]: ...


class Source(Protocol):
    """Where captioned samples come from. Sample `number` counts what was asked of the source since the run began."""

    name: str
    size: int  #: samples in one pass; 0: endless
    prompts: Mapping[str, Prompts]
    held_out: np.ndarray  #: positions in `dataset` that are measured on, and never trained on
    calibration: np.ndarray  #: positions on which the logit scale is fitted, and never trained on

    @property
    def dataset(self) -> Dataset:
        """Samples for measurements; `held_out` and `calibration` are positions in it."""

    def read(self, numbers: np.ndarray, u: np.ndarray, progress: float) -> Captioned:
        """Samples by number. `u`: (n, NUMBERS) uniform numbers that decide; `progress`: share of the run, in [0, 1]."""

    def texts(self) -> Iterable[str]:
        """All that its captions may say, for a vocabulary."""


@dataclass(frozen=True)
class ClassPrompts:
    """Prompts of classes that are compared in every step."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    period: int = 1
    offset: int = 0


@dataclass(frozen=True)
class CaptionedBatch:
    """See `Captioned`."""

    images: Tensor
    captions: tuple[str, ...]
    attributes: Mapping[str, Tensor]


class Stored:
    """A source read into memory: pixels as bytes, an epoch a permutation keyed by (seed, source, epoch).

    Args:
        joint: the prompts of all stored sources together; a label is the position of its class name there.
        place: of this source in the recipe, so that equal data sets are not seen in the same order.
    """

    def __init__(self, dataset: Cached, recipe: Pretrain, joint: ClassPrompts, captions: Sequence[Any] | None, place: int):
        self.dataset, self.recipe, self.captions, self.place = dataset, recipe, captions, place
        self.name, self.templates = dataset.name, joint.templates
        single = dataset.task == "single"
        self.prompts: Mapping[str, Prompts] = {"classes": joint} if single else {}
        apart = recipe.held_out + recipe.calibrate if single else 0
        self.train, rest = held_out_split(np.asarray(dataset.labels), apart, recipe.seed)
        order = np.random.Generator(np.random.Philox(key=[recipe.seed, 2**33])).permutation(rest)
        measured = round(len(rest) * recipe.held_out / max(apart, 1))
        self.held_out, self.calibration = np.sort(order[:measured]), np.sort(order[measured:])
        self.size = len(self.train)
        self.labels = _positions(dataset.classnames, joint.classnames)[dataset.labels] if single else None
        self._permutation = lru_cache(maxsize=2)(self._fresh_permutation)

    def _fresh_permutation(self, epoch: int) -> np.ndarray:
        key = [self.recipe.seed, (self.place + 1) * 2**34 + epoch]
        order: np.ndarray = np.random.Generator(np.random.Philox(key=key)).permutation(self.train)
        return order

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the data set of samples by number."""
        found = np.empty(len(numbers), np.int64)
        for epoch in np.unique(numbers // self.size):
            here = numbers // self.size == epoch
            found[here] = self._permutation(int(epoch))[numbers[here] % self.size]
        return found

    def read(self, numbers: np.ndarray, u: np.ndarray, progress: float) -> Captioned:
        """Augmented images with a caption each: one of the sample's own, or its class name in one of the templates."""
        rows, recipe = self.rows(numbers), self.recipe
        pixels = self.dataset.pixels[torch.from_numpy(rows)]
        images = augment(pixels, u[:, :DRAWS], pad=recipe.pad, flip=recipe.flip, crop_scale=recipe.crop_scale)
        captions = tuple(self._caption(int(row), float(draw)) for row, draw in zip(rows, u[:, DRAWS], strict=True))
        labels = {} if self.labels is None else {"classes": torch.from_numpy(self.labels[rows])}
        return CaptionedBatch(images, captions, labels)

    def _caption(self, row: int, u: float) -> str:
        if self.captions is not None:
            own = self.captions[row]
            return own if isinstance(own, str) else str(own[int(u * len(own))])
        template = self.templates[int(u * len(self.templates))]
        return template.format(self.dataset.classnames[self.dataset.labels[row]])

    def texts(self) -> Iterable[str]:
        """Every caption, and every class name in every template."""
        yield from (text.format(name) for text in self.templates for name in self.dataset.classnames)
        for own in self.captions if self.captions is not None else ():
            yield from [own] if isinstance(own, str) else own


class Rendered:
    """An endless source: the `caption_stream` of a data set, whose own samples serve for measurements only."""

    size = 0

    def __init__(self, dataset: Dataset, stream: Any, recipe: Pretrain):
        self.dataset, self.stream, self.recipe, self.name = dataset, stream, recipe, dataset.name
        self.prompts: Mapping[str, Prompts] = stream.prompts
        labels = np.asarray(dataset.labels)
        rest, self.held_out = held_out_split(labels, recipe.held_out, recipe.seed)
        self.calibration = rest[: recipe.calibrate]

    def read(self, numbers: np.ndarray, u: np.ndarray, progress: float) -> Captioned:
        """Fresh samples; the difficulty grows over the first part of the run."""
        difficulty = min(1.0, progress / self.recipe.ramp) if self.recipe.ramp else 1.0
        found: Captioned = self.stream.read(numbers.tolist(), seed=self.recipe.seed, difficulty=difficulty)
        return found

    def texts(self) -> Iterable[str]:
        """What the stream says its captions are made of."""
        found: Iterable[str] = self.stream.texts()
        return found


def make_sources(recipe: Pretrain) -> list[Source]:
    """The sources of a recipe, in its order; those that are stored share one set of class prompts.

    Raises:
        UserError: a spec that cannot be built, images of another size, or neither classes nor captions to learn from.
    """
    built = [datasets.build(spec) for spec in recipe.sources]
    labelled = [d for d in built if getattr(d, "caption_stream", None) is None and d.task == "single"]
    joint = joint_prompts(labelled, recipe)
    found: list[Source] = []
    for place, dataset in enumerate(built):
        stream, captions = getattr(dataset, "caption_stream", None), getattr(dataset, "captions", None)
        if stream is not None:
            found.append(Rendered(dataset, stream, recipe))
            continue
        if dataset.task != "single" and captions is None:
            raise UserError(f"source '{dataset.name}' is multi-label and has no captions; there is nothing to learn from")
        found.append(Stored(cached(dataset, recipe.image_size), recipe, joint, captions, place))
        if found[-1].size == 0:
            raise UserError(f"source '{dataset.name}' has no samples left to train on; lower held_out and calibrate")
    return found


def joint_prompts(labelled: Sequence[Dataset], recipe: Pretrain) -> ClassPrompts:
    """The class names of several data sets, each name once, and the recipe's templates or else those of the sets."""
    names = dict.fromkeys(name for dataset in labelled for name in dataset.classnames)
    own = dict.fromkeys(text for dataset in labelled for text in dataset.templates if isinstance(text, str))
    for text in recipe.templates:
        if "{}" not in text:
            raise UserError(f"recipe '{recipe.name}': template '{text}' has no {{}} for the class name")
    return ClassPrompts(tuple(names), recipe.templates or tuple(own))


def counts(sources: Sequence[Source], recipe: Pretrain) -> np.ndarray:
    """How many samples of a batch come from each source: by the recipe's shares, else by size; adds up to `batch`.

    Raises:
        UserError: if an endless source stands beside others without shares, or a source would get no sample.
    """
    weights = np.array(recipe.shares or [source.size for source in sources], float)
    if len(sources) > 1 and not weights.all():
        raise UserError(f"recipe '{recipe.name}' mixes an endless source with others; give shares")
    weights = weights if weights.all() else np.ones(1)
    edges = np.round(np.concatenate([[0], weights.cumsum() / weights.sum()]) * recipe.batch).astype(int)
    found: np.ndarray = np.diff(edges)
    if not found.all():
        name = sources[int(np.argmin(found))].name
        raise UserError(f"recipe '{recipe.name}': source '{name}' has no sample in a batch of {recipe.batch}; raise its share")
    return found


def _positions(names: Sequence[str], among: Sequence[str]) -> np.ndarray:
    where = {name: place for place, name in enumerate(among)}
    return np.array([where[name] for name in names], np.int64)
