"""A training run as a folder: `model.safetensors` (the image tower) beside `card.json`; and the weights a card names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..clip import weights
from ..types import UserError

CARD, TOWER = "card.json", "model.safetensors"


def locate(variant: str | None, card: dict[str, Any] | None = None) -> tuple[Path, dict[str, Any]]:
    """The weights file a variant or card names, and what is known about it (`base`, `activation`, `sha256`).

    Raises:
        UserError: if there is none, or if its sha256 is not the one its card states.
    """
    facts = {} if variant else dict(card or {})
    if not variant and "weights" not in facts:
        raise UserError("model 'checkpoint' needs a file or run folder: checkpoint:PATH")
    path = Path(variant).expanduser() if variant else card_weights(facts)
    if path.is_dir():
        path, facts = path / TOWER, read_card(path)
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    stated = facts.get("sha256")
    found = weights.sha256(path)
    if stated and found != stated:
        raise UserError(f"'{path}' has sha256 {found[:12]}..., its card states {stated[:12]}...; refused")
    return path, facts


def card_weights(card: dict[str, Any]) -> Path:
    """Where a card's weights file is: beside the card, else in the folder ``models`` of the data root.

    Raises:
        UserError: if it is in neither place, saying where to get it and where to put it.
    """
    here = Path(card.get("path", "")).parent / card["weights"]
    kept = Path(os.environ.get("ROBUSTCAL_DATA") or "~/.cache/robustcal").expanduser() / "models" / card["weights"]
    for path in (here, kept):
        if path.exists():
            return Path(path)
    name = Path(card.get("path", card["weights"])).stem
    get = f"fetch {card['url']} and put it" if "url" in card else "put the file"
    get = f"get {card['weights']} from {card['homepage']} and put it" if "url" not in card and "homepage" in card else get
    raise UserError(f"the weights of model '{name}' are not here: {get} at {kept}")


def read_card(folder: Path) -> dict[str, Any]:
    """The `card.json` of a training run. Raises `UserError` if the folder is not one, or has no weights yet."""
    try:
        card = json.loads((folder / CARD).read_text())
    except FileNotFoundError:
        known = f"a training run ({CARD}) nor a model folder (open_clip_config.json, or config.json of transformers)"
        raise UserError(f"'{folder}' is neither {known}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder / CARD}' is not readable JSON ({error})") from None
    if not isinstance(card, dict):
        raise UserError(f"'{folder / CARD}' is not a card")
    if not (folder / TOWER).is_file():
        raise UserError(f"training run '{folder}' has no {TOWER} yet; let it finish, or resume it")
    return card
