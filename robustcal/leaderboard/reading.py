"""Read the submission of a stranger: the whole of it checked, then laid out as a run that any report can read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cell import SHARD
from ..records.content import content_hash
from ..records.signoff import SignOff, read_signoff
from ..records.store import Run
from ..registry import ROOT
from ..types import UserError
from .archive import parsed, read_archive, refused
from .card import Card, match, read_card
from .cells import Held, read_cells
from .columns import read_columns

#: Models of a submission: all pairs of a column are compared.
MOST_MODELS = 100
#: How long the tables of a submission may take.
SECONDS = 600


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


@dataclass(frozen=True)
class Parts:
    """A submission but for its records, which are still `tables`: cell -> parquet."""

    content: str
    card: Card
    versions: dict[str, str]
    held: list[Held]
    tables: dict[str, bytes]
    signoff: SignOff | None


def read_submission(path: Path, folder: Path, *, apart: bool = True) -> Submission:
    """Check a submission and lay its records out as a run in `folder`, which must not exist.

    Nothing of it is executed, no member's name becomes a path, and nothing stays unless all of it is in order.

    Args:
        apart: its tables are decoded in a process of their own, with limits: a file can be made that ends the decoder.

    Raises:
        UserError: one line that names the file and what is wrong.
    """
    parts = parts_of(path)
    try:
        if apart:
            lay_out_apart(path, folder)
        else:
            lay_out_all(path, parts, folder)
        run = Run.open(folder)
        records = content_hash(run)
        if parts.signoff is not None and parts.signoff.run != records:
            raise refused(path, "its sign-off is of other records")
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Submission(path.name, parts.content, records, parts.card, run, parts.versions, parts.signoff)


def parts_of(path: Path) -> Parts:
    """All of a submission but its records.

    Raises:
        UserError: one line that names the file and what is wrong.
    """
    content, members = read_archive(path)
    if not {"card.toml", "cells.json"} <= members.keys():
        raise refused(path, "it lacks its card or its cells")
    versions, held = read_cells(parsed(members["cells.json"], path, "cells.json"), path)
    tables = {one.cell.id: f"records/{one.cell.id}.parquet" for one in held}
    if surplus := ({*tables.values()} ^ members.keys()) - {"card.toml", "cells.json", "signoff.json"}:
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
    return Parts(content, card, versions, held, {cell: members[name] for cell, name in tables.items()}, signoff)


def lay_out_apart(path: Path, folder: Path) -> None:
    """`lay_out_all` in a process of its own.

    Raises:
        UserError: what that process says; or that it was ended, by a table made to do so or by its limits.
    """
    command = [sys.executable, "-P", "-m", "robustcal.leaderboard.apart", str(path), str(folder)]  # -P: nothing of this folder
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT.parent), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, env=env, check=False)
    except subprocess.TimeoutExpired:
        raise refused(path, f"its records take more than {SECONDS} seconds to read") from None
    if done.returncode == 2:
        raise UserError(" ".join(done.stderr.split())[:400])
    if done.returncode:
        raise refused(path, f"its records end the process that reads them (status {done.returncode})")


def lay_out_all(path: Path, parts: Parts, folder: Path) -> None:
    """Read and check every table, then write all of them as a run.

    Raises:
        UserError: a table is not what its cell says.
    """
    columns = {one.cell.id: read_columns(parts.tables[one.cell.id], one.cell, one.rows, path) for one in parts.held}
    run = Run.create(folder, {"command": "", "versions": parts.versions})
    for one in parts.held:
        lay_out(run, one, columns[one.cell.id])


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
