"""The record: an append-only run directory that survives any kill and that many workers can share.

    RUN/run.json                      what was asked: commands, versions, device, seeds
    RUN/records/<cell>/cell.json      everything that defines one cell
    RUN/records/<cell>/00000.parquet  one shard: one row per sample
    RUN/claims/<cell>-00000           held while a worker computes that shard, see `claims`

Crash safety. A file is written beside its place under a temporary name, flushed to disk, and renamed: a reader sees
the whole file or none. A shard carries its cell, its index and a checksum in its footer. Footers are looked at whenever
a run continues, checksums whenever a value is read: a shard that is truncated, damaged or foreign is moved aside, named,
and computed again. A cell's shards are found by one look at its folder, so that a run may have millions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..types import RECORD_COLUMNS, Records, UserError
from . import claims, shardfile
from .shardfile import TEMPORARY, DamagedShard, write_atomically

__all__ = ["DamagedShard", "Run", "claim_name", "write_atomically"]

FORMAT = 1
#: Threads that read the shards of a cell: most of the time is spent outside Python, decompressing.
READERS = min(8, os.cpu_count() or 1)
#: Threads that look at footers when a run continues: they wait for the file system, not for a core.
LOOKERS = 4


class Run:
    """A run directory. Open it with `Run.open`, make or continue one with `Run.create`."""

    def __init__(self, path: Path, header: dict[str, Any], claim_seconds: float = claims.SECONDS):
        self.path, self.header = path, header
        self.claims = claims.Claims(path / "claims", claim_seconds)

    # -- opening -------------------------------------------------------------------------------------------------
    @classmethod
    def open(cls, path: str | Path, claim_seconds: float = claims.SECONDS) -> Run:
        """Open an existing run directory, to read it or to work on it.

        Raises:
            UserError: if there is none at `path`, or an incompatible version made it.
        """
        path = Path(path)
        file = path / "run.json"
        if not file.is_file():
            raise UserError(f"'{path}' is not a run directory: it has no run.json")
        try:
            header = json.loads(file.read_text())
            made_by = header["format"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise UserError(f"'{file}' is not a robustcal run header; choose another --out") from None
        if made_by != FORMAT:
            raise UserError(
                f"'{path}' was made by an incompatible version (record format {made_by}, this one reads {FORMAT});"
                f" use robustcal {header.get('versions', {}).get('robustcal', '?')} or another --out"
            )
        return cls(path, header, claim_seconds)

    @classmethod
    def create(cls, path: str | Path, invocation: Mapping[str, Any], claim_seconds: float = claims.SECONDS) -> Run:
        """Make a run directory, or continue the one at `path`; `invocation` is appended to its header.

        Raises:
            UserError: if `path` cannot be written, is a file, holds something else, or is incompatible.
        """
        path = Path(path)
        header = path / "run.json"
        if not header.exists() and not _is_free(path) and not header.exists():  # a second driver may have just made it
            raise UserError(f"'{path}' exists and is not a run directory; choose another --out")
        run = cls.open(path) if header.exists() else cls(path, {"format": FORMAT, "invocations": []})
        run.claims.seconds = claim_seconds
        invocations = run.header.setdefault("invocations", [])
        if not any(_same(invocation, other) for other in invocations):
            invocations.append(dict(invocation))
        run.header["versions"] = invocation.get("versions", run.header.get("versions", {}))
        try:
            write_atomically(path / "run.json", _json(run.header))
            (path / "records").mkdir(exist_ok=True)
            (path / "claims").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to '{path}': {error.strerror or error}; choose another --out") from None
        return run

    # -- cells -----------------------------------------------------------------------------------------------------
    def add_cell(self, cell: Mapping[str, Any]) -> None:
        """Store what defines a cell (`cell["id"]`, ...). Writing the same cell twice changes nothing."""
        path = self.path / "records" / cell["id"] / "cell.json"
        if not path.exists():
            write_atomically(path, _json(cell))

    def cells(self) -> list[dict[str, Any]]:
        """All cells of the run, ordered by what they are (model, dataset, attack, radius), not by time.

        Where unreadable images are skipped, `skipped` says how many of the `n` samples have no row.

        Raises:
            UserError: a ``cell.json`` that is damaged.
        """
        found = []
        for path in self.path.glob("records/*/cell.json"):
            cell = _cell_of(path)
            if cell.get("skip_unreadable"):
                cell["skipped"] = len(self.skipped(cell["id"]))
            if cell["id"] == path.parent.name:
                found.append(cell)
        return sorted(found, key=lambda c: (c["order"], c["id"]) if "order" in c else ([], c["id"]))

    # -- shards ------------------------------------------------------------------------------------------------------
    def shard_path(self, cell: str, shard: int) -> Path:
        return self.path / "records" / cell / f"{shard:05d}.parquet"

    def present(self, cell: str) -> set[int]:
        """The shards of a cell that exist, by one look at its folder."""
        return {int(name[:-8]) for name in self._names(cell) if name.endswith(".parquet") and name[:-8].isdigit()}

    def missing(self, cell: Mapping[str, Any]) -> list[int]:
        """The shards of a cell that are still to be computed, in order."""
        present = self.present(cell["id"])
        return [shard for shard in range(cell["shards"]) if shard not in present]

    def has(self, cell: str, shard: int) -> bool:
        return self.shard_path(cell, shard).exists()

    def _names(self, cell: str) -> list[str]:
        try:
            return os.listdir(self.path / "records" / cell)
        except FileNotFoundError:
            return []

    def write_shard(self, cell: str, shard: int, records: Records, skipped: Sequence[str] = ()) -> None:
        """Write one shard atomically; rows keep their order. `skipped`: ids without a row, their image unreadable."""
        shardfile.write(self.shard_path(cell, shard), records, _stamp(cell, shard), skipped)

    def read_shard(self, cell: str, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one shard, checksums verified; of `columns` those that it has, or all.

        Raises:
            DamagedShard: truncated, damaged, foreign.
        """
        return shardfile.read(self.shard_path(cell, shard), _stamp(cell, shard), columns)

    def discard_damaged(self, cell: Mapping[str, Any]) -> list[str]:
        """Move shards aside whose footer cannot be trusted, remove what killed workers left. One line for each shard."""
        with ThreadPoolExecutor(LOOKERS) as pool:
            found = list(pool.map(lambda shard: self._damage(cell["id"], shard), sorted(self.present(cell["id"]))))
        self._remove_leftovers(cell["id"])
        return [self.set_aside(damage) for damage in found if damage]

    def _damage(self, cell: str, shard: int) -> DamagedShard | None:
        try:
            return shardfile.check(self.shard_path(cell, shard), _stamp(cell, shard))
        except DamagedShard as damage:
            return damage

    def set_aside(self, damage: DamagedShard) -> str:
        """Rename a damaged shard, so that it is missing and computed again. Returns a line that says so."""
        with suppress(OSError):
            os.replace(damage.path, damage.path.with_suffix(".damaged"))
        return f"{damage}; it is computed again"

    def _remove_leftovers(self, cell: str) -> None:
        leftovers = [name for name in self._names(cell) if name.endswith(TEMPORARY)]
        now = self.claims.now() if leftovers else 0.0
        for name in leftovers:
            path = self.path / "records" / cell / name
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > self.claims.seconds:  # else another driver may be writing it
                    path.unlink()

    def read(self, cell: str, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """All records of a cell, in sample order. List columns come back as arrays of equal-length rows (N, k).

        `columns` names those to read (a record is mostly logits); columns the records lack are left out.

        Raises:
            DamagedShard: a shard is damaged. It was set aside, so that the same bench command computes it again.
        """
        try:
            with ThreadPoolExecutor(READERS) as pool:
                tables = list(pool.map(lambda shard: self.read_shard(cell, shard, columns), sorted(self.present(cell))))
        except DamagedShard as damage:
            self.set_aside(damage)
            raise DamagedShard(damage.path, f"{damage.reason}; run the same bench command again to compute it") from None
        if not tables:  # unfinished: no rows
            return {name: np.empty(0, dtype=object) for name in columns or RECORD_COLUMNS}
        table = pa.concat_tables(tables)
        return {name: shardfile.as_array(table.column(name)) for name in table.column_names}

    def skipped(self, cell: str) -> list[str]:
        """The ids of samples that were left out of a cell because their image could not be read."""
        paths = [self.shard_path(cell, shard) for shard in sorted(self.present(cell))]
        return [name for path in paths for name in shardfile.skipped_in(path)]

    # -- claims ------------------------------------------------------------------------------------------------------
    def claim(self, cell: str, shard: int) -> bool:
        """Take a missing shard for this process; False if it exists or a live worker holds it."""
        if self.has(cell, shard) or not self.claims.take(claim_name(cell, shard)):
            return False
        if self.has(cell, shard):  # between the first look and the claim another worker has finished it
            self.claims.release(claim_name(cell, shard))
            return False
        return True

    def drop_claims(self) -> None:
        """Remove the claims on shards that exist: of workers killed between the rename and the release."""
        for name in self.claims.held():
            cell, _, shard = name.rpartition("-")
            if shard.isdigit() and self.has(cell, int(shard)):
                (self.path / "claims" / name).unlink(missing_ok=True)


def claim_name(cell: str, shard: int) -> str:
    """The file name of a shard's claim."""
    return f"{cell}-{shard:05d}"


def _cell_of(path: Path) -> dict[str, Any]:
    try:
        cell = json.loads(path.read_text())
        if isinstance(cell["id"], str):
            return cell
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"'{path}' does not define a cell: it is damaged; remove it and run the same bench command again")


def _stamp(cell: str, shard: int) -> dict[str, str]:
    """What every shard says about itself in its footer."""
    return {"robustcal.format": str(FORMAT), "robustcal.cell": cell, "robustcal.shard": str(shard)}


def _is_free(path: Path) -> bool:
    # A run killed before its header was renamed into place leaves only hidden temporaries.
    mine = (".run.json", "report")
    return not path.exists() or (path.is_dir() and all(p.name.startswith(mine) for p in path.iterdir()))


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    strip = {"time"}
    return {k: v for k, v in one.items() if k not in strip} == {k: v for k, v in other.items() if k not in strip}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
