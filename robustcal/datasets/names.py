"""From the class keys of the data (folder names, WordNet ids, country codes) to the words of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..types import UserError

#: Country names by ISO 3166-1 alpha-2 code, tab-separated.
COUNTRIES = Path(__file__).parent / "cards" / "countries.txt"


def class_names(
    keys: Sequence[str], rule: Any, rename: Sequence[Sequence[str]], lower: bool, source: str
) -> list[str]:
    """Class names for these keys, index = label.

    Args:
        rule: None (the keys themselves), a list (index = label), a mapping key -> name, or the name of a lookup
            in `LOOKUPS`.
        rename: (regular expression, replacement) pairs, applied in turn.
        lower: make them lower-case, last.
        source: what an error points at.

    Raises:
        UserError: if a key has no name, or a list has another length.
    """
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
    for pattern, replacement in rename:
        names = [re.sub(pattern, replacement, name) for name in names]
    return [name.lower() for name in names] if lower else names


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
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
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
    rows = (line.split("\t") for line in COUNTRIES.read_text(encoding="utf-8").splitlines() if line)
    return {code: name for code, name in rows}


def _wnids() -> list[str]:
    """The 1000 WordNet ids of ImageNet-1k in class order, which is sorted order."""
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_names()


LOOKUPS = {
    "wordnet": wordnet, "torchvision": torchvision_categories, "clip": clip_names,
    "imagenet-index": imagenet_indices, "country": countries,
}  # fmt: skip
