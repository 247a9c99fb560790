"""The card of a submission: who submits, and of each model its name, authors, paper, training data, link and licence."""

from __future__ import annotations

import difflib
import json
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..cell import Cell
from ..types import UserError

MOST = 300  #: characters of a field
#: Categories of signs without a shape, and directions of those that turn the writing.
UNSEEN, TURNING = ("Cc", "Cs", "Zl", "Zp"), ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@dataclass(frozen=True)
class ModelCard:
    """What others should know of one model; "" where nobody said it.

    Attributes:
        model: what the run calls it, its spec or the beginning of it.
        name: what it is called on a board.
        paper: its title, or its address.
        link: where weights or code are; an address.
    """

    model: str
    name: str
    authors: str = ""
    paper: str = ""
    training_data: str = ""
    link: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Card:
    """A submission's card."""

    submitter: str = ""
    models: tuple[ModelCard, ...] = ()

    def of(self, spec: str) -> ModelCard:
        """The card of a model of the run; one that says its name only where there is none."""
        found = [card for card in self.models if card.model == spec]
        return found[0] if found else ModelCard(spec, spec)


#: Key -> what stands beside it in the template. The first four must be given.
WORDS = {
    "name": "what the board calls it",
    "authors": "who made it",
    "training_data": "what it was trained and fine-tuned on",
    "licence": "of the weights, such as MIT; \"not released\" where there are none",
    "paper": "title or address; may stay empty",
    "link": "https address of weights or code; may stay empty",
}
NEEDED = ("name", "authors", "training_data", "licence")


def template(models: Iterable[tuple[str, str, str]] = ()) -> str:
    """A card to fill in, for the models of a run: (spec, name, training data), the latter two as far as they are known."""
    lines = ["# The card of a submission. Fill in every text; robustcal pack --card FILE checks it.", 'submitter = ""  # you', ""]
    for spec, name, data in list(models) or [("MODEL", "", "")]:
        known = {"name": name, "training_data": data}
        lines += ["[[model]]", f"model = {_quoted(spec)}  # in the run; leave as it is"]
        lines += [f"{key} = {_quoted(known.get(key, ''))}  # {about}" for key, about in WORDS.items()] + [""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def read_card(data: bytes, where: str, whole: bool = True) -> Card:
    """The card in a TOML file. `whole`: every model says what must be said.

    Raises:
        UserError: one line that says what is missing or wrong in `where`.
    """
    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"card '{where}' is no TOML: {' '.join(str(error).split())[:100]}") from None
    _known(found, ("submitter", "model"), where)
    models = found.get("model", [])
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise UserError(f"card '{where}': models stand in tables [[model]]; robustcal pack --template shows one")
    cards = tuple(_model(model, where, whole) for model in models)
    if len({card.model for card in cards}) < len(cards):
        raise UserError(f"card '{where}' has two tables of one model")
    return Card(_text(found, "submitter", where), cards)


def _model(found: dict[str, Any], where: str, whole: bool) -> ModelCard:
    names = [one.name for one in fields(ModelCard)]
    _known(found, names, where)
    texts = {name: _text(found, name, where) for name in names}
    what = f"card '{where}', model '{texts['model'][:60]}'"
    for name in ("model", "name", *(NEEDED if whole else ())):
        if not texts[name]:
            raise UserError(f"{what}: {name} is empty; say {WORDS.get(name, 'which model of the run it is')}")
    if texts["link"] and not is_link(texts["link"]):
        raise UserError(f"{what}: link '{texts['link'][:60]}' is no https address")
    return ModelCard(**texts)


def _known(found: dict[str, Any], names: Sequence[str], where: str) -> None:
    for key in found:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1, 0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
            raise UserError(f"card '{where}' has no key '{key[:40]}'; {hint}")


def _text(found: dict[str, Any], name: str, where: str) -> str:
    text = found.get(name, "")
    if not isinstance(text, str) or len(text) > MOST or not is_plain(text):
        raise UserError(f"card '{where}': {name} is not a text of one line and at most {MOST} characters")
    return text.strip()


def is_plain(text: str) -> bool:
    """Whether a text has no control characters and none that turn the direction of writing."""
    if text.isascii():
        return not text or text.isprintable()
    return not any(unicodedata.category(c) in UNSEEN or unicodedata.bidirectional(c) in TURNING for c in text)


def is_link(text: str) -> bool:
    """Whether a text is an address that a page may link to."""
    return text.startswith(("https://", "http://")) and not any(c.isspace() or c in "\"'<>\\`" for c in text)


def match(card: Card, cells: Sequence[Cell], names: dict[str, str]) -> Card:
    """The card with each model's whole spec of the run in the place of its beginning; models without one get their name.

    Args:
        cells: of the submission. `names`: whole spec -> what the run calls it.

    Raises:
        UserError: a model of the card that is none of the run's, or several.
    """
    specs = list(dict.fromkeys(cell.model for cell in cells))
    found: dict[str, ModelCard] = {}
    for one in card.models:
        fits = [spec for spec in specs if one.model in (spec, names[spec])]
        fits = fits or [spec for spec in specs if spec.startswith(one.model)]
        if len(fits) != 1 or fits[0] in found:
            how = "several" if len(fits) > 1 else "twice one" if fits else "none"
            raise UserError(f"the card's model '{one.model[:60]}' is {how} of the run's: {', '.join(names.values())}")
        found[fits[0]] = replace(one, model=fits[0])
    return Card(card.submitter, tuple(found.get(spec, ModelCard(spec, names[spec])) for spec in specs))
