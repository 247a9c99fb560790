"""The content hash of a run: of what its records say, the same on every machine and for a submission packed from it."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ..cell import Cell, to_json
from ..types import RECORD_COLUMNS
from .portable import portable_cell
from .store import Run

#: Not hashed: a submission may leave them out, and the other columns follow from them.
LOGITS = ("top_logits", "top_classes", "rest_logit")
#: What of a cell is hashed.
FACTS = ("identity", "n", "dataset_size", "classnames", "templates", "task", "resolution", "kind", "accuracy_only", "keeps_label")


def content_hash(run: Run) -> str:
    """``sha256:`` and 64 hex digits, over all cells and all columns of their records but the logits.

    Where a run lies, how it was computed and in which order does not matter; paths in specs are replaced as
    `portable.portable_cell` does.
    """
    cells = sorted(_cell_hash(run, cell, portable_cell(cell)) for cell in run.cells())
    return "sha256:" + hashlib.sha256("\n".join(cells).encode()).hexdigest()


def _cell_hash(run: Run, cell: Cell, shown: Cell) -> str:
    about = to_json(shown)
    facts = {**{name: about[name] for name in FACTS}, "skipped": sorted(run.skipped(cell.id))}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    columns = [name for name in (*RECORD_COLUMNS, "labels") if name not in LOGITS]
    records = run.read(cell.id, columns)
    for name in columns:
        if name in records:
            digest.update(f"\0{name}\0".encode() + as_bytes(records[name]))
    return digest.hexdigest()


def as_bytes(column: np.ndarray) -> bytes:
    """A column, independent of the width of its type and of the machine: doubles, 64-bit integers, or lines of JSON."""
    if column.dtype.kind == "f":
        values = column.astype("<f8")
        return np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes()  # one nan, one zero
    if column.dtype.kind in "biu":
        return column.astype("<i8").tobytes()
    return "\n".join(json.dumps(value.tolist() if isinstance(value, np.ndarray) else str(value)) for value in column).encode()
