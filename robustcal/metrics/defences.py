"""Flags of test-time defences: attacked only by attacks that ignore them, and more often right under attack than without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..cell import Cell
from ..registry import parse_spec
from ..types import Records
from .validity import HARMFUL, exceeds

NOT_ADAPTIVE, ABOVE_CLEAN = "not-adaptive", "robust-above-clean"
#: What a run remembers of a model that is not the same for every image, see `models.defended.Defended.defence`.
RANDOMISED, ADAPTING = "randomised", "adapting"


def defence_flags(
    cells: Sequence[Cell], defences: Mapping[str, Sequence[str]], read: Callable[[str], Records]
) -> dict[str, list[str]]:
    """The flags of this file: {cell id: [flags]}, of cells that have any.

    Args:
        cells: as stored; of one or of many models and datasets.
        defences: cell id -> what its run remembers of the model's defence; nothing where there is none.
        read: cell id -> records; of clean cells and attacks, `id` and `correct` are used.
    """
    found: dict[str, list[str]] = {}
    attacks = [cell for cell in cells if cell.kind in HARMFUL and cell.threat.goal in ("untargeted", "targeted")]
    for cell in attacks:
        told = defences.get(cell.id, ())
        if told and not any(adapts(other, told) for other in attacks if _place(other) == _place(cell)):
            found.setdefault(cell.id, []).append(NOT_ADAPTIVE)
        clean = next((c for c in cells if c.kind == "clean" and _model(c) == _model(cell)), None)
        if clean is not None and above(read(cell.id), read(clean.id)):
            found.setdefault(cell.id, []).append(ABOVE_CLEAN)
    return found


def adapts(attack: Cell, defence: Sequence[str]) -> bool:
    """Whether an attack reckons with a defence: it takes gradients of it, and where it is randomised, averages over draws."""
    return attack.kind == "white-box" and (RANDOMISED not in defence or averages(attack))


def averages(attack: Cell) -> bool:
    """Whether an attack averages over a model's randomness: it has `draws`, or is AutoAttack's version for that."""
    spec = parse_spec(attack.attack)
    return spec.params.get("draws", 1) not in (1, "1") or (spec.name, spec.variant) == ("autoattack", "rand")


def above(attacked: Records, clean: Records) -> bool:
    """Whether significantly more of the same samples are right under attack than without."""
    if not np.array_equal(np.asarray(attacked["id"]), np.asarray(clean["id"])):
        return False
    a, c = (np.asarray(records["correct"], dtype=bool) for records in (attacked, clean))
    return exceeds(int((a & ~c).sum()), int((~a & c).sum()))


def _model(cell: Cell) -> tuple[str, str, str, int]:
    return cell.model, cell.dataset, cell.precision, cell.n


def _place(cell: Cell) -> tuple[object, ...]:
    return (*_model(cell), cell.threat.norm, cell.eps)
