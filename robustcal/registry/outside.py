"""Plugins and cards from outside the package: a user's own files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tomllib
from pathlib import Path

from ..types import UserError
from .families import datasets, models
from .specs import normalise


def load_plugin_file(path: str | Path) -> None:
    """Run a user's own Python file, whose decorators register its plugins; a ``.toml`` file is read as a card.

    Raises:
        UserError: if the file is missing, is not Python, or fails while it runs.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"plugin file '{path}' does not exist")
    if path.suffix == ".toml":
        return _load_card_file(path)
    name = f"robustcal_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return None
    definition = importlib.util.spec_from_file_location(name, path)
    if definition is None or definition.loader is None:
        raise UserError(f"plugin file '{path}' is not a Python file")
    module = importlib.util.module_from_spec(definition)
    sys.modules[name] = module
    try:
        definition.loader.exec_module(module)
    except UserError:
        raise
    except BaseException as error:
        del sys.modules[name]
        raise UserError(f"plugin file '{path}' failed: {type(error).__name__}: {error}") from error


def _load_card_file(path: Path) -> None:
    """Add a card to the family that has its ``source``."""
    try:
        source = normalise(str(tomllib.loads(path.read_text()).get("source")))
    except (ValueError, OSError) as error:
        raise UserError(f"card '{path}' is not TOML: {error}") from None
    for family in (datasets, models):
        if source in family.names():
            return family.add_card(path)
    raise UserError(f"card '{path}' has the unknown source '{source}'; see: robustcal ls datasets, robustcal ls models")
