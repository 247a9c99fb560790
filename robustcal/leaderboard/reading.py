"""Read the submission of a stranger: the whole of it checked, then laid out as a run that any report can read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cell import SHARD
from ..records.content import content_hash
from ..records.signoff import SignOff, read_signoff
from ..records.store import Run
from ..types import UserError
from .archive import parsed, read_archive, refused
from .card import Card, match, read_card
from .cells import Held, read_cells
from .columns import read_columns

#: Models of a submission: all pairs of a column are compared.
MOST_MODELS = 100


@dataclass(frozen=True)
class Submission:
    """One file of a leaderboard.

    Attributes:
        file: its name, without its folder.
        content: hash of all it holds.
        records: hash of its records, which a sign-off names.
        run: its records as a run of their own, in a temporary folder.
        signoff: what its own sign-off says, if it has one; a claim of the submitter.
    """

    file: str
    content: str
    records: str
    card: Card
    run: Run
    versions: dict[str, str]
    signoff: SignOff | None = None


def read_submission(path: Path, folder: Path) -> Submission:
    """Check a submission and lay its records out as a run in `folder`, which must not exist.

    Nothing of it is executed, no member's name becomes a path, and nothing stays unless all of it is in order.

    Raises:
        UserError: one line that names the file and what is wrong.
    """
    content, members = read_archive(path)
    if not {"card.toml", "cells.json"} <= members.keys():
        raise refused(path, "it lacks its card or its cells")
    versions, held = read_cells(parsed(members["cells.json"], path, "cells.json"), path)
    named = {f"records/{one.cell.id}.parquet" for one in held}
    if surplus := (named ^ members.keys()) - {"card.toml", "cells.json", "signoff.json"}:
        raise refused(path, f"{min(surplus)} is missing, or belongs to no cell")
    cells = [one.cell for one in held]
    try:
        card = match(read_card(members["card.toml"], "card.toml", whole=False), cells, {cell.model: cell.model for cell in cells})
        signoff = read_signoff(members["signoff.json"], "signoff.json") if "signoff.json" in members else None
    except UserError as error:
        raise refused(path, str(error)) from None
    if len(card.models) > MOST_MODELS:
        raise refused(path, f"it has {len(card.models)} models; {MOST_MODELS} is the most")
    if len({(cell.model, cell.identity.weights) for cell in cells}) > len(card.models):
        raise refused(path, "one of its models has several weights; they are submissions of their own")
    columns = {one.cell.id: read_columns(members.pop(f"records/{one.cell.id}.parquet"), one.cell, one.rows, path) for one in held}
    run = Run.create(folder, {"command": "", "versions": versions})
    for one in held:
        lay_out(run, one, columns[one.cell.id])
    records = content_hash(run)
    if signoff is not None and signoff.run != records:
        shutil.rmtree(folder)
        raise refused(path, "its sign-off is of other records")
    return Submission(path.name, content, records, card, run, versions, signoff)


def lay_out(run: Run, held: Held, records: Mapping[str, np.ndarray]) -> None:
    """Write the records of one cell into a run, shard by shard as they were."""
    cell, start = held.cell, 0
    run.add_cell(cell)
    if held.alike:
        run.remark(cell.id, "classes", ["some classes cannot be told apart, the submission says"])
    for shard in range(cell.shards):
        skipped = held.skipped.get(shard, ())
        stop = start + min(SHARD, cell.rows(shard)) - len(skipped)
        rows: dict[str, Any] = {name: values[start:stop] for name, values in records.items()}
        rows |= {"labels": list(rows["labels"])} if "labels" in rows else {}
        run.write_shard(cell.id, shard, rows, skipped)
        start = stop
