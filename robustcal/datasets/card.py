"""What a dataset card decides: prompts, recipe, resolution, and whether the data found are the data described."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..types import UserError
from .images import RECIPES, ImageDataset, naming
from .names import class_names

Card = Mapping[str, Any]
DEFAULT_TEMPLATE = "This is a photo of a {}"
DEFAULT_RESOLUTION = 224


def card_name(card: Card) -> str:
    """The registered name of a card: its file name."""
    return Path(card["path"]).stem.replace("_", "-")


def split_of(card: Card | None, split: str | None, default: str | None = None) -> str | None:
    """The split to read: the one asked for, else the card's, else `default`.

    Raises:
        UserError: if it is not one of the card's.
    """
    if not card:
        return split or default
    chosen = split or card.get("split") or default
    known = list(card.get("splits", {}))
    if not known and card["source"] != "webdataset":  # a pack lists its splits itself
        known = [card.get("split")]
    if known and chosen not in known:
        raise UserError(f"dataset '{card_name(card)}' has no split '{chosen}'; it has: {', '.join(map(str, known))}")
    return chosen


def split_table(card: Card | None, split: str | None) -> dict[str, Any]:
    """What the card says about one split: ``options``, ``files``, ``size`` ... (empty without a card)."""
    return dict((card or {}).get("splits", {}).get(split, {}))


def check_templates(templates: Sequence[str], source: str) -> tuple[str, ...]:
    """Prompts with exactly one ``{}``; ``{c}``, as CLIP_benchmark writes it, is accepted.

    Raises:
        UserError: naming `source` and the offending line.
    """
    checked = []
    for template in templates:
        text = template.replace("{c}", "{}")
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        except ValueError:
            fields = ["?"]
        if fields != [""]:
            raise UserError(f"prompt template '{template}' in {source} must hold the class name once, as {{c}}")
        checked.append(text)
    if not checked:
        raise UserError(f"{source} holds no prompt template; write one per line, with {{c}} for the class name")
    return tuple(checked)


def prompts_of(card: Card | None, prompts: str, keys: Sequence[str], templates: Sequence[str] | None):
    """Class names and templates: what the data say (`keys`, `templates`), overruled by the card's chosen prompt set.

    Args:
        prompts: "card", or the name of one of the card's ``[prompts.NAME]`` tables.
    """
    card = card or {}
    sets = card.get("prompts", {})
    source = f"card '{card_name(card)}'" if card else "a dataset without a card"
    if prompts != "card" and prompts not in sets:
        raise UserError(f"{source} has no prompt set '{prompts}'; there are: {', '.join(['card', *sets])}")
    chosen = {**card, **sets.get(prompts, {})}
    names = class_names(keys, chosen.get("classnames"), chosen.get("rename", ()), chosen.get("lower", False), source)
    return tuple(names), check_templates(chosen.get("templates") or templates or [DEFAULT_TEMPLATE], source)


def check_counts(card: Card | None, split: str | None, classes: int, size: int, where: str) -> None:
    """Refuse data whose number of classes or images is not the card's.

    Raises:
        UserError: with both numbers and the place.
    """
    if not card:
        return
    name, expected = card_name(card), card.get("size")
    if card.get("splits") and split != card.get("split"):
        expected = split_table(card, split).get("size")
    advice = "complete the copy, or accept what is there with check=false"
    if card.get("classes") not in (None, classes):
        says = f"its card says {card['classes']}"
        raise UserError(f"dataset '{name}' has {classes} classes in {where}, {says}; {advice}")
    if expected not in (None, size):
        place = f"{where} ({split})" if split else where
        raise UserError(f"dataset '{name}' has {size} images in {place}, its card says {expected}; {advice}")


def geometry(
    card: Card | None, resolution: str | None, preprocess: str | None, first_size: Callable[[], tuple[int, int]]
) -> tuple[int, str]:
    """Resolution in pixels and recipe: what was asked for, else the card's, else 224 and ``crop``.

    ``resolution=native`` keeps the stored pixels; their side is the card's ``native``, else that of the first image.

    Raises:
        UserError: unknown recipe, a resolution that is no number, or no native resolution.
    """
    card = card or {}
    text = str(resolution or card.get("resolution", DEFAULT_RESOLUTION))
    recipe = preprocess or ("native" if text == "native" else card.get("preprocess", "crop"))
    if recipe not in RECIPES:
        raise UserError(f"unknown preprocess '{recipe}'; there are: {', '.join(RECIPES)}")
    if text != "native":
        if not text.isdigit() or int(text) == 0:
            raise UserError(f"resolution '{text}' is not a number of pixels, like 224, nor the word native")
        return int(text), recipe
    if "native" in card:
        return int(card["native"]), recipe
    width, height = first_size()
    if card or width != height:
        raise UserError("this dataset has no native resolution: its images differ in size or are not square; say 224")
    return width, recipe


def describe(
    card: Card | None, *, name: str, split: str | None, keys: Sequence[str], labels: np.ndarray,
    ids: Sequence[str], picture, content, where, place: str, facts: str = "", templates: Sequence[str] | None = None,
    resolution: str | None, preprocess: str | None, prompts: str, check: bool,
) -> ImageDataset:  # fmt: skip
    """Turn what a source found into a dataset, in the words of its card.

    Args:
        keys: the classes as the data name them, index = label.
        place: the file or folder an error points at.
        templates: prompts that come with the data; a card's own overrule them.
        The last four are the spec parameters that every source shares.
    """
    if check:
        check_counts(card, split, len(keys), len(labels), place)
    if not len(labels):
        raise UserError(f"dataset '{name}' has no images in {place}")
    classnames, prompt_templates = prompts_of(card, prompts, keys, templates)

    def first_size() -> tuple[int, int]:
        with naming(where(0), name), picture(0) as image:
            return image.size

    side, recipe = geometry(card, resolution, preprocess, first_size)
    return ImageDataset(
        name=name, classnames=classnames, templates=prompt_templates, resolution=side, labels=labels, ids=ids,
        picture=picture, content=content, where=where, recipe=recipe, facts=facts,
    )  # fmt: skip
