"""From the class keys of the data (folder names, WordNet ids, country codes) to the words of a prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..types import UserError

#: Country names by ISO 3166-1 alpha-2 code, tab-separated.
COUNTRIES = Path(__file__).parent / "cards" / "countries.txt"


def class_names(keys: Sequence[str], rules: Mapping[str, Any], source: str) -> list[str]:
    """Class names for these keys, index = label.

    Args:
        rules: of a card. ``classnames``: absent (the keys themselves), a list (index = label), a mapping key -> name,
            or the name of a lookup in `LOOKUPS`; then, in this order, ``rename``: (regular expression, replacement)
            pairs, applied in turn; and ``separators`` and ``lower``, as in `normalised`.
        source: what an error points at.

    Raises:
        UserError: if a key has no name, or a list has another length.
    """
    rule = rules.get("classnames")
    if rule is None:
        names = list(keys)
    elif isinstance(rule, str):
        if rule not in LOOKUPS:
            raise UserError(f"{source} names its classes by '{rule}'; there are: {', '.join(LOOKUPS)}")
        names = _look_up(LOOKUPS[rule](), keys, source)
    elif isinstance(rule, Mapping):
        names = _look_up(rule, keys, source)
    elif len(rule) != len(keys):
        raise UserError(f"{source} lists {len(rule)} class names, but the data have {len(keys)} classes")
    else:
        names = list(rule)
    for pattern, replacement in rules.get("rename", ()):
        names = [re.sub(pattern, replacement, name) for name in names]
    return [normalised(name, rules.get("separators", ""), rules.get("lower", False)) for name in names]


def normalised(name: str, separators: str = "", lower: bool = False) -> str:
    """A class name as the published evaluations put it into a prompt: each of `separators` a blank; lower-case or not.

    They do it in three ways: "_-/" for sets with the default prompt, "_-" for sets with their own, "_" for aircraft.
    Nothing else is cleaned: blanks at the end and question marks stay.
    """
    name = name.translate({ord(separator): " " for separator in separators})
    return name.lower() if lower else name


def doubtful_names(names: Sequence[str]) -> list[str]:
    """One line for each way in which names make prompts that cannot be told apart: no name, or one for several."""
    empty = [str(label) for label, name in enumerate(names) if not name.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    lines = [f"classes without a name, whose prompts say nothing: {len(empty)}, label {', '.join(empty[:8])}"] * bool(empty)
    shown = ", ".join(repeated[:8])
    return lines + [f"names that several classes share: {len(repeated)}, {shown}"] * bool(repeated)


def say_nothing(keys: Sequence[str]) -> bool:
    """Whether all of these are numbers, or WordNet ids: labels, but no words for a prompt."""
    return all(re.fullmatch("[0-9]+", key) for key in keys) or all(re.fullmatch("n[0-9]{8}", key) for key in keys)


def _look_up(table: Mapping[str, str], keys: Sequence[str], source: str) -> list[str]:
    unknown = [key for key in keys if key not in table]
    if unknown:
        raise UserError(f"{source} knows no name for class '{unknown[0]}' ({len(unknown)} such of {len(keys)})")
    return [table[key] for key in keys]


@cache
def wordnet() -> dict[str, str]:
    """First WordNet lemma of each ImageNet-1k class by WordNet id, as the published evaluations have it.

    Three pairs collide once lower-cased (crane, maillot, cardigan): one class of each pair can never win.
    """
    info = _imagenet()
    return {key: info.label_name_to_description(key, detailed=False).split(",")[0] for key in info.label_names()}


@cache
def torchvision_categories() -> dict[str, str]:
    """The names torchvision ships with its ImageNet weights, by WordNet id."""
    from torchvision.models import ResNet50_Weights

    return dict(zip(_wnids(), ResNet50_Weights.DEFAULT.meta["categories"], strict=True))


@cache
def clip_names() -> dict[str, str]:
    """The cleaned ImageNet names of CLIP, by WordNet id; "missile" and "sunglasses" stand for two classes each."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return dict(zip(_wnids(), IMAGENET_CLASSNAMES, strict=True))


@cache
def imagenet_indices() -> dict[str, str]:
    """First WordNet lemmas by class index as text ("0" to "999"), for sets whose folders are numbered."""
    return {str(index): wordnet()[key] for index, key in enumerate(_wnids())}


@cache
def countries() -> dict[str, str]:
    """Country names by ISO 3166-1 alpha-2 code (and XK for Kosovo)."""
    lines = COUNTRIES.read_text(encoding="utf-8").splitlines()
    return {code: name for code, _, name in (line.partition("\t") for line in lines if line)}


def _wnids() -> list[str]:
    """The 1000 WordNet ids of ImageNet-1k in class order, which is sorted order."""
    return list(_imagenet().label_names())


def _imagenet() -> Any:
    from timm.data import ImageNetInfo  # type: ignore[attr-defined]

    return ImageNetInfo("imagenet-1k")


LOOKUPS = {
    "wordnet": wordnet, "torchvision": torchvision_categories, "clip": clip_names,
    "imagenet-index": imagenet_indices, "country": countries,
}  # fmt: skip
