"""The cells that a stranger's submission says it has: each a `Cell` whose every field can be what it says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cell import Cell, from_json, to_json
from ..records.portable import portable_cell
from ..registry import parse_spec
from ..types import UserError, parse_radius
from .archive import refused
from .card import is_plain

MOST_CELLS, MOST_CLASSES, MOST_SAMPLES, MOST_TEXT = 20_000, 30_000, 10**8, 2000
TASKS = ("single", "multi", "ood")
KINDS = ("clean", "control", "shift", "white-box", "black-box", "transfer")
HASH = re.compile(r"[0-9a-f]{16}")
#: A number so long, or whose power of ten is so large, that exact fractions of it would take for ever.
HUGE = re.compile(r"\s*[-+]?([\d_.]+[eE][-+]?[\d_]{3,}|[\d_.]{40,}([eE][-+]?[\d_]+)?)\s*")
RADIUS = re.compile(r"[0-9]{1,9}(/[0-9]{1,9})?")


@dataclass(frozen=True)
class Held:
    """A cell of a submission. `skipped`: shard -> ids without a row. `alike`: some of its classes cannot be told apart."""

    cell: Cell
    skipped: dict[int, tuple[str, ...]]
    alike: bool

    @property
    def rows(self) -> int:
        return self.cell.n - sum(map(len, self.skipped.values()))


def read_cells(found: Any, path: Path) -> tuple[dict[str, str], list[Held]]:
    """Versions and cells from the parsed ``cells.json``.

    Raises:
        UserError: one line that names the file and the first thing that is wrong.
    """
    if not isinstance(found, dict) or set(found) != {"versions", "cells"} or not isinstance(found["cells"], list):
        raise refused(path, "its cells.json is not {versions, cells}")
    versions = found["versions"]
    if not isinstance(versions, dict) or not all(_is_text(text, 100) for pair in versions.items() for text in pair):
        raise refused(path, "its versions are not texts")
    if not 0 < len(found["cells"]) <= MOST_CELLS:
        raise refused(path, f"it has {len(found['cells'])} cells")
    held = []
    for at, one in enumerate(found["cells"]):
        try:
            held.append(_held(one))
        except (ValueError, TypeError, UserError, OverflowError) as error:
            raise refused(path, f"cell {at}: {' '.join(str(error).split())[:140]}") from None
    if len({one.cell.id for one in held}) < len(held):
        raise refused(path, "a cell stands there twice")
    return versions, held


def _held(found: Any) -> Held:
    if not isinstance(found, dict) or set(found) != {"cell", "skipped", "classes_alike"}:
        raise ValueError("it is not {cell, skipped, classes_alike}")
    cell, skipped = from_json(Cell, found["cell"]), found["skipped"]
    if fault := _fault(cell):
        raise ValueError(fault)
    if not isinstance(found["classes_alike"], bool) or not isinstance(skipped, dict):
        raise ValueError("skipped is no mapping, or classes_alike is neither true nor false")
    kept = {}
    for shard, names in skipped.items():
        if not isinstance(names, list) or not all(_is_text(name, 400) for name in names) or not re.fullmatch("[0-9]{1,7}", shard):
            raise ValueError("skipped is not shard -> ids")
        if not 0 < len(names) <= cell.rows(int(shard)):
            raise ValueError("skipped names more samples than a shard has")
        kept[int(shard)] = tuple(names)
    return Held(cell, kept, found["classes_alike"])


def _fault(cell: Cell) -> str:
    """What a cell says that cannot be; "" where nothing."""
    identity, threat = cell.identity, cell.threat
    texts = [value for value in to_json(identity).values() if isinstance(value, str)]
    if not all(_is_text(text, MOST_TEXT) for text in [*texts, threat.norm, threat.goal, threat.returns]):
        return "a text of its identity is too long or has control characters"
    if not HASH.fullmatch(cell.id) or cell.id != identity.digest():
        return "its id is not the hash of its identity"
    for text in (cell.model, cell.dataset, cell.attack):
        parse_spec(text)
        if any(map(HUGE.fullmatch, re.split("[:=/]", text))):
            return f"'{text[:60]}' has a number that is too large"
    if portable_cell(cell) != cell:
        return "a spec of it names a path of a machine, which may lead anywhere on this one"
    if not RADIUS.fullmatch(cell.eps) or not math.isclose(float(parse_radius(cell.eps)), threat.eps, rel_tol=1e-9, abs_tol=1e-12):
        return f"its radius '{cell.eps[:30]}' is not {threat.eps:g}"
    if not 0 <= threat.low < threat.high <= 1 or not 0 <= threat.eps <= 1e6:
        return "its threat model is not within [0, 1]"
    if cell.task not in TASKS or cell.kind not in KINDS or cell.members or cell.over or cell.skipped:
        return "its task or kind is none that is recorded"
    if not (0 < cell.n <= cell.dataset_size <= MOST_SAMPLES and 0 < cell.resolution <= 100_000 and abs(cell.model_place) < 10**6):
        return "a number of samples or pixels cannot be"
    if not 1 < len(cell.classnames) <= MOST_CLASSES or not all(_is_text(name, MOST_TEXT) for name in cell.classnames):
        return "its classes are not at least two texts"
    if not all(_is_text(t, MOST_TEXT) if isinstance(t, str) else _are_texts(t) for t in cell.templates):
        return "its prompts are not texts"
    plain = all(isinstance(value, (int, float)) or _is_text(value, MOST_TEXT) for value in (cell.training or {}).values())
    return "" if plain else "its training is not plain"


def _are_texts(found: Any) -> bool:
    return isinstance(found, (list, tuple)) and all(_is_text(text, MOST_TEXT) for text in found)


def _is_text(found: Any, most: int) -> bool:
    return isinstance(found, str) and len(found) <= most and is_plain(found)
