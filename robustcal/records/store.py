"""The record: an append-only run directory that survives any kill and that many workers can share.

    RUN/run.json                         what was asked: commands, versions, device, seeds
    RUN/records/<cell>/cell.json         everything that defines one cell, and how many samples were asked for
    RUN/records/<cell>/remarks.json      what is worth knowing of its data and its classes, if anything
    RUN/records/<cell>/00000.parquet     one shard: one row per sample
    RUN/records/<cell>/00001-72.parquet  the last one, of 72 samples: replaced when the cell grows
    RUN/claims/<cell>-00000              held while a worker computes that shard, see `claims`
    RUN/failed/<cell>                    why the cell could not be computed; removed when it is tried again

Crash safety. A file is written beside its place under a temporary name, flushed to disk, and renamed: a reader sees
the whole file or none. A shard carries its cell, its index and a checksum in its footer. Footers are looked at whenever
a run continues, checksums whenever a value is read: a shard that is truncated, damaged or foreign is moved aside, named,
and computed again. A cell's shards are found by one look at its folder, so that a run may have millions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ..cell import SHARD, Cell, from_json, to_json
from ..types import RECORD_COLUMNS, Records, UserError
from . import claims, derived, shardfile
from .claims import claim_name
from .header import as_json, extended_header, read_header
from .shardfile import TEMPORARY, DamagedShard, write_atomically

__all__ = ["DamagedShard", "Run", "claim_name", "write_atomically"]

REMARKS = "remarks.json"
#: Threads that read the shards of a cell: most of the time is spent outside Python, decompressing.
READERS = min(8, os.cpu_count() or 1)
#: How often a reader looks again where a shard was replaced under its eyes.
RETRIES = 5

T = TypeVar("T")


class Run:
    """A run directory. Open it with `Run.open`, make or continue one with `Run.create`."""

    def __init__(self, path: Path, header: dict[str, Any], claim_seconds: float = claims.SECONDS, mends: bool = True):
        self.path, self.header, self.mends = path, header, mends
        self.claims = claims.Claims(path / "claims", claim_seconds)

    # -- opening -------------------------------------------------------------------------------------------------
    @classmethod
    def open(cls, path: str | Path, claim_seconds: float = claims.SECONDS, mends: bool = True) -> Run:
        """Open an existing run directory. `mends`: move damaged shards aside when they are met.

        Raises:
            UserError: if there is none at `path`, or an incompatible version made it.
        """
        path = Path(path)
        return cls(path, read_header(path), claim_seconds, mends)

    @classmethod
    def create(cls, path: str | Path, invocation: Mapping[str, Any], claim_seconds: float = claims.SECONDS) -> Run:
        """Make a run directory, or continue the one at `path`; `invocation` is appended to its header.

        Raises:
            UserError: if `path` cannot be written, is a file, holds something else, or is incompatible.
        """
        path = Path(path)
        run = cls(path, extended_header(path, invocation), claim_seconds)
        try:
            (path / "claims").mkdir(exist_ok=True, parents=True)
            with run.claims.alone():
                run.header = extended_header(path, invocation)  # another driver may have added to it
                write_atomically(path / "run.json", as_json(run.header))
            (path / "records").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to '{path}': {error.strerror or error}; choose another --out") from None
        return run

    # -- cells -----------------------------------------------------------------------------------------------------
    def add_cell(self, cell: Cell) -> None:
        """Store what defines a cell; one that is there keeps the larger number of samples."""
        path = self.path / "records" / cell.id / "cell.json"
        if not path.exists() or _cell_of(path).n < cell.n:
            write_atomically(path, as_json(to_json(cell)))

    def cells(self) -> list[Cell]:
        """All cells of the run, ordered by what they are (model, dataset, attack, radius), not by time.

        Where unreadable images are skipped, `skipped` says how many of the `n` samples have no row.

        Raises:
            UserError: a ``cell.json`` that is damaged.
        """
        found = [_cell_of(path) for path in self.path.glob("records/*/cell.json")]
        found = [replace(c, skipped=len(self.skipped(c.id))) if c.identity.skip_unreadable else c for c in found]
        return sorted(found, key=lambda cell: (cell.place, cell.id))

    # -- failures ----------------------------------------------------------------------------------------------------
    def fail(self, cell: str, reason: str) -> None:
        """Say that a cell cannot be computed, so that no other worker tries."""
        write_atomically(self.path / "failed" / cell, reason.encode())

    def failures(self) -> dict[str, str]:
        """Cells that could not be computed, and why."""
        found: dict[str, str] = {}
        for path in sorted((self.path / "failed").glob("[!.]*")):
            with suppress(FileNotFoundError):  # another driver lets it be tried again at this moment
                found[path.name] = path.read_text()
        return found

    def forget_failure(self, cell: str) -> None:
        """Let a cell be tried again."""
        (self.path / "failed" / cell).unlink(missing_ok=True)

    def remark(self, cell: str, about: str, lines: Sequence[str]) -> None:
        """Keep what was noticed `about` a cell's "data", "classes" or "defence"; no lines, no remark."""
        held = self.remarks(cell)
        if list(lines) != held.get(about, []):
            write_atomically(self.path / "records" / cell / REMARKS, as_json({**held, about: list(lines)}))

    def remarks(self, cell: str) -> dict[str, list[str]]:
        """What was noticed about a cell, by what it is about."""
        path = self.path / "records" / cell / REMARKS
        with suppress(ValueError):
            found: dict[str, list[str]] = json.loads(path.read_text()) if path.is_file() else {}
            return found
        return {}

    # -- shards ------------------------------------------------------------------------------------------------------
    def shard_path(self, cell: str, shard: int, rows: int = SHARD) -> Path:
        """Where a shard of so many samples lies."""
        return self.path / "records" / cell / shardfile.name_of(shard, rows)

    def present(self, cell: str) -> dict[int, int]:
        """The shards of a cell that exist and how many samples each covers, by one look at its folder."""
        return {shard: rows for shard, rows, _ in sorted(shardfile.all_in(self.path / "records" / cell))}  # the longest of each

    def missing(self, cell: Cell) -> list[int]:
        """The shards of a cell that are still to be computed, in order; a last one of fewer samples counts as missing."""
        present = self.present(cell.id)
        return [shard for shard in range(cell.shards) if present.get(shard, 0) < cell.rows(shard)]

    def held(self, cell: Cell) -> int:
        """How many samples a cell holds from the beginning of its order without a gap, those without a row included."""
        count = 0
        for shard, rows in self.present(cell.id).items():
            if shard * SHARD != count:
                break
            count += rows
        return min(count, cell.dataset_size)

    def has(self, cell: Cell, shard: int) -> bool:
        """Whether a shard exists with all samples that the cell asks for."""
        rows = cell.rows(shard)
        if self.shard_path(cell.id, shard, rows).exists():
            return True
        return rows < SHARD and self.present(cell.id).get(shard, 0) >= rows  # a look at the folder, for the last one only

    def write_shard(self, cell: str, shard: int, records: Records, skipped: Sequence[str] = ()) -> None:
        """Write one shard atomically; rows keep their order. `skipped`: ids without a row, their image unreadable.

        A shard of fewer samples that stood in its place, from before the cell grew, is removed.
        """
        rows = len(records["id"]) + len(skipped)
        shardfile.write(self.shard_path(cell, shard, rows), records, skipped)
        self._remove_superseded(cell)

    def _remove_superseded(self, cell: str) -> None:
        """Remove shards beside which one of the same place with more samples lies."""
        present = self.present(cell)
        for shard, rows, path in shardfile.all_in(self.path / "records" / cell):
            if rows < present[shard]:
                path.unlink(missing_ok=True)

    def read_shard(self, cell: str, shard: int, rows: int = SHARD, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one shard of so many samples, checksums verified; of `columns` those that it has, or all.

        Raises:
            DamagedShard: truncated, damaged, foreign.
        """
        return shardfile.read(self.shard_path(cell, shard, rows), columns)

    def read_believed(self, cell: str, shard: int, rows: int = SHARD, columns: Sequence[str] | None = None) -> pa.Table:
        """`read_shard`, and derived columns compared with what they follow from; `DamagedShard` also where one does not."""
        if columns is not None and not set(columns) & set(derived.DERIVED):
            return self.read_shard(cell, shard, rows, columns)
        compared = {"id", *derived.DERIVED, *derived.GIVEN}
        table = self.read_shard(cell, shard, rows, None if columns is None else [*columns, *compared])
        records = {name: shardfile.as_array(table.column(name)) for name in table.column_names if name in compared}
        if fault := derived.contradiction(records):
            raise DamagedShard(self.shard_path(cell, shard, rows), fault)
        return table if columns is None else table.select([name for name in table.column_names if name in columns])

    def discard_damaged(self, cell: str) -> list[str]:
        """Move shards aside whose footer cannot be trusted, remove what killed workers left. One line for each shard."""

        def damage(shard: int, rows: int) -> DamagedShard | None:
            try:
                shardfile.check(self.shard_path(cell, shard, rows))
            except DamagedShard as damage:
                return damage
            return None

        found = self._of_each(cell, damage)
        self._remove_superseded(cell)
        for path in (self.path / "records" / cell).glob(f".*{TEMPORARY}"):
            with suppress(FileNotFoundError):
                if self.claims.now() - path.stat().st_mtime > self.claims.seconds:  # else another driver may be writing it
                    path.unlink()
        return [self.set_aside(damage) for damage in found if damage]

    def set_aside(self, damage: DamagedShard) -> str:
        """Rename a damaged shard, so that it is missing and computed again. Returns a line that says so."""
        with suppress(OSError):
            if self.mends:
                os.replace(damage.path, damage.path.with_suffix(".damaged"))
        return f"{damage}; it is computed again"

    def read(self, cell: str, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """All records of a cell, in sample order. List columns come back as arrays of equal-length rows (N, k).

        `columns` names those to read (a record is mostly logits); columns the records lack are left out. Whatever follows from
        logits and labels is computed again and compared.

        Raises:
            DamagedShard: a shard is damaged or contradicts itself. It was set aside, so that the same bench command computes it
                again.
        """
        try:
            tables = self._of_each(cell, lambda shard, rows: self.read_believed(cell, shard, rows, columns))
        except DamagedShard as damage:
            self.set_aside(damage)
            raise DamagedShard(damage.path, f"{damage.reason}; run the same bench command again to compute it") from None
        if not tables:  # unfinished: no rows
            return {name: np.empty(0, dtype=object) for name in columns or RECORD_COLUMNS}
        table = pa.concat_tables(tables)
        return {name: shardfile.as_array(table.column(name)) for name in table.column_names}

    def first(self, cell: Cell, count: int) -> list[str]:
        """The ids of the samples that the first shards of a cell, `count` samples in all, hold, with or without a row."""

        def names(shard: int, rows: int) -> list[str]:
            if shard * SHARD >= count:
                return []
            ids = self.read_shard(cell.id, shard, rows, ("id",)).column("id").to_pylist()
            return [*ids, *shardfile.skipped_in(self.shard_path(cell.id, shard, rows))]

        return list(chain.from_iterable(self._of_each(cell.id, names)))

    def skipped(self, cell: str) -> list[str]:
        """The ids of samples that were left out of a cell because their image could not be read."""
        return list(chain.from_iterable(self._of_each(cell, lambda *at: shardfile.skipped_in(self.shard_path(cell, *at)))))

    def _of_each(self, cell: str, look: Callable[[int, int], T]) -> list[T]:
        """`look` at each shard of a cell, in order. Looks again where a shard was replaced by a longer one meanwhile."""
        for patience in range(RETRIES, -1, -1):
            try:
                with ThreadPoolExecutor(READERS) as pool:
                    return list(pool.map(lambda part: look(*part), self.present(cell).items()))
            except FileNotFoundError as error:
                if not patience:
                    raise UserError(f"shard '{error.filename}' cannot be read: {error.strerror}") from None
        return []

    # -- claims ------------------------------------------------------------------------------------------------------
    def claim(self, cell: Cell, shard: int) -> bool:
        """Take a missing shard for this process; False if it exists or a live worker holds it."""
        name = claim_name(cell.id, shard)
        if self.has(cell, shard) or not self.claims.take(name):
            return False
        if self.has(cell, shard):  # between the first look and the claim another worker has finished it
            self.claims.release(name)
            return False
        return True

    def drop_claims(self, cells: Iterable[Cell]) -> None:
        """Remove the claims on shards that exist: of workers killed between the rename and the release."""
        known = {cell.id: cell for cell in cells}
        for name in self.claims.held():
            cell, _, shard = name.rpartition("-")
            if cell in known and shard.isdecimal() and self.has(known[cell], int(shard)):
                (self.path / "claims" / name).unlink(missing_ok=True)


def _cell_of(path: Path) -> Cell:
    with suppress(ValueError):
        cell = from_json(Cell, json.loads(path.read_text()))
        if cell.id == path.parent.name:
            return cell
    raise UserError(f"'{path}' does not define a cell: it is damaged; remove it and run the same bench command again")
