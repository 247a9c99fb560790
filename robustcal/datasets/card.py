"""What a dataset card decides: prompts, recipe, resolution, and whether the data found are the data described."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..types import Templates, UserError
from .images import RECIPES, ImageDataset, naming
from .lines import whole_number
from .names import class_names, doubtful_names

Card = Mapping[str, Any]
DEFAULT_TEMPLATE = "This is a photo of a {}"
DEFAULT_RESOLUTION = 224


def card_name(card: Card) -> str:
    """The registered name of a card: its file name."""
    return Path(card["path"]).stem.replace("_", "-")


def split_of(card: Card | None, split: str | None) -> str | None:
    """The split to read: the one asked for, else the card's.

    Raises:
        UserError: if it is not one of the card's.
    """
    if not card:
        return split
    chosen = split or card.get("split")
    known = list(card.get("splits", {}))
    if not known and card["source"] != "webdataset":  # a pack lists its splits itself
        known = [card.get("split")]
    if known and chosen not in known:
        raise UserError(f"dataset '{card_name(card)}' has no split '{chosen}'; it has: {', '.join(map(str, known))}")
    return chosen


def split_table(card: Card | None, split: str | None) -> dict[str, Any]:
    """What the card says about one split: ``options``, ``files``, ``size`` ... (empty without a card)."""
    return dict((card or {}).get("splits", {}).get(split, {}))


@dataclass(frozen=True)
class Asked:
    """The spec parameters that every source of stored pictures shares."""

    resolution: str | None = None
    preprocess: str | None = None
    prompts: str = "card"  #: "card", or the name of one of the card's ``[prompts.NAME]`` tables
    check: bool = True  #: refuse data whose counts are not the card's


def check_templates(templates: Sequence[str], source: str, whole: bool = False) -> tuple[str, ...]:
    """Prompts with exactly one ``{}``; ``{c}``, as CLIP_benchmark writes it, is accepted.

    Args:
        whole: accept whole sentences too, without ``{}``: for prompts of one class.

    Raises:
        UserError: naming `source` and the offending line.
    """
    checked = []
    for template in templates:
        text = str(template).replace("{c}", "{}")
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        except ValueError:
            fields = ["?"]
        if fields != [""] and not (whole and text.strip() and not fields):
            raise UserError(f"prompt template '{template}' in {source} must hold the class name once, as {{c}}")
        checked.append(text)
    if not checked:
        raise UserError(f"{source} holds no prompt template; write one per line, with {{c}} for the class name")
    return tuple(checked)


def templates_of(rule: Any, keys: Sequence[str], source: str) -> Templates:
    """Templates from a card: a list of texts; or for each class its own, as a list of lists or a mapping from keys.

    Raises:
        UserError: if some class has none, or the lists are not one per class.
    """
    if isinstance(rule, Mapping):
        rule = [rule.get(key, ()) for key in keys]
        lacking = [key for key, own in zip(keys, rule, strict=True) if not own]
        if lacking:
            raise UserError(f"{source} has no prompts for class '{lacking[0]}' ({len(lacking)} such of {len(keys)})")
    elif all(isinstance(text, str) for text in rule):
        return check_templates(rule, source)
    elif len(rule) != len(keys):
        raise UserError(f"{source} lists prompts for {len(rule)} classes, but the data have {len(keys)} classes")
    own = [(key, [texts] if isinstance(texts, str) else texts) for key, texts in zip(keys, rule, strict=True)]
    return tuple(check_templates(texts, f"{source}, class '{key}'", whole=True) for key, texts in own)


def prompts_of(
    card: Card | None, prompts: str, keys: Sequence[str], templates: Templates | None
) -> tuple[tuple[str, ...], Templates]:
    """Class names and templates: what the data say (`keys`, `templates`), overruled by the card's chosen prompt set."""
    card = card or {}
    sets = card.get("prompts", {})
    source = f"card '{card_name(card)}'" if card else "a dataset without a card"
    if prompts != "card" and prompts not in sets:
        raise UserError(f"{source} has no prompt set '{prompts}'; there are: {', '.join(['card', *sets])}")
    chosen = {**card, **sets.get(prompts, {})}
    names = class_names(keys, chosen, source)
    return tuple(names), templates_of(chosen.get("templates") or templates or [DEFAULT_TEMPLATE], keys, source)


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


def geometry(card: Card | None, asked: Asked, first_size: Callable[[], tuple[int, int]]) -> tuple[int, str]:
    """Resolution in pixels and recipe: what was asked for, else the card's, else 224 and ``crop``.

    ``resolution=native`` keeps the stored pixels; their side is the card's ``native``, else that of the first image.

    Raises:
        UserError: unknown recipe, a resolution that is no number, or no native resolution.
    """
    card = card or {}
    text = str(asked.resolution or card.get("resolution", DEFAULT_RESOLUTION))
    recipe = asked.preprocess or ("native" if text == "native" else str(card.get("preprocess", "crop")))
    if recipe not in RECIPES:
        raise UserError(f"unknown preprocess '{recipe}'; there are: {', '.join(RECIPES)}")
    if text != "native":
        side = whole_number(text)
        if not side:
            raise UserError(f"resolution '{text}' is not a number of pixels, like 224, nor the word native")
        return side, recipe
    if "native" in card:
        return int(card["native"]), recipe
    width, height = first_size()
    if card or width != height:
        raise UserError("this dataset has no native resolution: its images differ in size or are not square; say 224")
    return width, recipe


def describe(
    card: Card | None, asked: Asked, *, name: str, split: str | None, keys: Sequence[str], labels: np.ndarray,
    ids: Sequence[str], picture: Callable[[int], Image.Image], content: Callable[[int], bytes],
    where: Callable[[int], str], place: str, facts: str = "", templates: Templates | None = None,
    notes: Sequence[str] = (),
) -> ImageDataset:  # fmt: skip
    """Turn what a source found into a dataset, in the words of its card.

    Args:
        asked: what the spec says.
        keys: the classes as the data name them, index = label.
        place: the file or folder an error points at.
        templates: prompts that come with the data; a card's own overrule them.
        notes: what the source left out, see `ImageDataset`.
    """
    if asked.check:
        check_counts(card, split, len(keys), len(labels), place)
    if not len(labels):
        raise UserError(f"dataset '{name}' has no images in {place}")
    classnames, prompt_templates = prompts_of(card, asked.prompts, keys, templates)

    def first_size() -> tuple[int, int]:
        with naming(where(0), name), picture(0) as image:
            return image.width, image.height

    side, recipe = geometry(card, asked, first_size)
    return ImageDataset(
        name=name, classnames=classnames, templates=prompt_templates, resolution=side, labels=labels, ids=ids,
        picture=picture, content=content, where=where, recipe=recipe, facts=facts,
        notes=(*notes, *doubtful_names(classnames)),
    )  # fmt: skip
