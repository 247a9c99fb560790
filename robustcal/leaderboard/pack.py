"""Pack a run into a submission: one file that says all that a board needs, and nothing of the machine that made it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..cell import Cell, to_json
from ..records import shardfile
from ..records.content import LOGITS, content_hash
from ..records.portable import portable_cell
from ..records.signoff import read_signoff
from ..records.store import Run
from ..report.labels import short_labels
from ..report.naming import kept_labels, labelled
from ..types import UserError
from .archive import as_json, write_archive
from .card import Card, match, read_card, template


class Packed(NamedTuple):
    """What was packed: hashes of the file's content and of its records, and how many cells there are."""

    content: str
    records: str
    cells: int


def pack(run: Run, out: Path, card: Path | None = None, *, logits: bool = False, signoff: Path | None = None) -> Packed:
    """Write the submission of a run.

    The bytes depend on the records, the card and the sign-off only.

    Args:
        card: TOML as `template` writes it; without one the models have their names and nothing else.
        logits: take the logits along, so that others can compute further metrics; cells with several labels an image always do.
        signoff: what ``robustcal verify`` wrote about this run.

    Raises:
        UserError: an unfinished run, a card that does not fit, or a text that would tell of this machine.
    """
    cells = finished(run)
    packed = [portable_cell(cell) for cell in cells]
    if len({cell.id for cell in packed}) < len(packed):
        raise UserError("two models of the run have the same weights under two paths; pack a run that has them once")
    given = read_card(_bytes(card, "card"), card.name) if card else Card()
    told = content_hash(run)
    members = {"card.toml": card_text(match(given, packed, names_of(run, cells))).encode()}
    about = {"versions": run.header.get("versions", {}), "cells": [_about(run, *pair) for pair in zip(cells, packed)]}
    members["cells.json"] = as_json(about)
    for cell, shown in zip(cells, packed):
        members[f"records/{shown.id}.parquet"] = table_bytes(run.read(cell.id), logits or cell.task == "multi")
    if signoff is not None:
        members["signoff.json"] = _bytes(signoff, "sign-off")
        if read_signoff(members["signoff.json"], signoff.name).run != told:
            raise UserError(f"sign-off '{signoff.name}' is of other records than the run's; robustcal verify makes one")
    for name, data in members.items():
        _tells_nothing(run, name, data)
    return Packed(write_archive(out, members), told, len(cells))


def finished(run: Run) -> list[Cell]:
    """The cells of a run, each with all of its samples.

    Raises:
        UserError: there is none, or one is unfinished.
    """
    cells = run.cells()
    if not cells:
        raise UserError(f"run '{run.path}' has no cells; robustcal bench fills it")
    for cell in cells:
        if run.missing(cell):
            raise UserError(f"run '{run.path}' is unfinished: {cell.title} lacks samples; run the same bench command again")
    return cells


def names_of(run: Run, cells: Sequence[Cell]) -> dict[str, str]:
    """Portable spec of every model -> what the run calls it."""
    specs = {cell.model: portable_cell(cell).model for cell in cells}
    names = labelled(short_labels(specs.values()), {})[0]
    kept = kept_labels([run]).get("model", {})
    return {shown: kept.get(spec) or names[shown] for spec, shown in specs.items()}


def template_of(run: Run | None) -> str:
    """A card to fill in, for the models of a run or for none."""
    if run is None:
        return template()
    cells = run.cells()
    names = names_of(run, cells)
    data = {shown.model: str((shown.training or {}).get("source_data", "")) for shown in map(portable_cell, cells)}
    return template((spec, name, data[spec]) for spec, name in names.items())


def card_text(card: Card) -> str:
    """The card as TOML, whole."""
    lines = [f"submitter = {json.dumps(card.submitter, ensure_ascii=False)}"]
    for model in card.models:
        lines += ["", "[[model]]", *(f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in asdict(model).items())]
    return "\n".join(lines) + "\n"


def _about(run: Run, cell: Cell, shown: Cell) -> dict[str, Any]:
    """What cells.json says of a cell: itself, and which samples of which shard have no row."""
    skipped = {}
    for shard, rows in run.present(cell.id).items():
        if names := shardfile.skipped_in(run.shard_path(cell.id, shard, rows)):
            skipped[str(shard)] = names
    alike = bool(run.remarks(cell.id).get("classes"))
    return {"cell": {**to_json(shown), "skipped": 0}, "skipped": skipped, "classes_alike": alike}


def table_bytes(records: Mapping[str, np.ndarray], logits: bool) -> bytes:
    """Records of one cell as parquet, plain and not compressed: what a reader can bound before it reads."""
    kept = {name: values for name, values in records.items() if logits or name not in LOGITS}
    table = pa.table({name: shardfile.column(list(v) if name == "labels" else v) for name, v in kept.items()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="NONE", use_dictionary=False, write_statistics=False, row_group_size=2**20)
    return sink.getvalue()


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{what} '{path}' cannot be read: {error.strerror}") from None


def _tells_nothing(run: Run, name: str, data: bytes) -> None:
    """Refuse a member that names a folder of this machine."""
    for folder in dict.fromkeys((str(run.path.resolve().parent), os.getcwd(), str(Path.home()))):
        text = folder.rstrip("/") + "/"
        if len(text) > 1 and text.encode() in data:
            where = "sample ids" if name.startswith("records") else name
            raise UserError(f"the submission would tell '{text}' of this machine, in {where}; give that a name without a path")
