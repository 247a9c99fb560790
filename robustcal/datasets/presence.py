"""Is a card's dataset here, and if not, what has to be put where? Reads the file system only; imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .root import data_root


def availability(card: Mapping[str, Any], split: str | None = None) -> tuple[bool, str]:
    """Whether the files of a card's split (default: its own) are below the data root, and a hint for the reader.

    The hint is where the data are, or what is missing and how to get it. Cards without ``files`` need none.
    Contents are not looked at: a damaged or incomplete copy is refused when the dataset is built.
    """
    files = needed_files(card, split)
    if not files:
        return True, "bundled"
    for module in card.get("needs", ()):
        if importlib.util.find_spec(module) is None:
            return False, f"needs the package {module}: pip install {module}"
    root = data_root()
    missing = [path for path in files if not (root / path).exists()]
    if not missing:
        return True, f"in {root / Path(files[0]).parts[0]}"
    fetched = "fetched on first use if the network is there; else " if "download" in card else ""
    return False, f"missing {root / missing[0]}; {fetched}{advice(card)}"


def advice(card: Mapping[str, Any]) -> str:
    """How to get a card's data onto this machine: its ``get`` line, with the data root filled in."""
    text = card.get("get") or f"get it from {card.get('url', 'its authors')}"
    return text.replace("{root}", str(data_root()))


def needed_files(card: Mapping[str, Any], split: str | None = None) -> list[str]:
    """The paths below the data root that a split needs: those of the split, else those of the card."""
    table = card.get("splits", {}).get(split or card.get("split"), {})
    return list(table.get("files", card.get("files", ())))
