"""The record: an append-only run directory that survives any kill and that many workers can share.

    RUN/run.json                      what was asked: commands, versions, device, seeds
    RUN/records/<cell>/cell.json      everything that defines one cell
    RUN/records/<cell>/00000.parquet  one shard: one row per sample
    RUN/claims/<cell>-00000           held while a worker computes that shard

Crash safety. A file is written beside its place under a temporary name, flushed to disk, and renamed: a reader sees
the whole file or none. A shard carries its cell and index in its footer and a checksum on every page; one that is
truncated, damaged or foreign is moved aside, named, and computed again. A claim belongs to a process; it is stale once
that process is gone (same host) or has not renewed it for `CLAIM_SECONDS` (another host), by the file system's clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .types import Records, UserError

FORMAT = 1
CLAIM_SECONDS = 300.0


class DamagedShard(Exception):
    """A shard file that is truncated, damaged, or belongs to another cell. Its text names the file and the reason."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Run:
    """A run directory. Open it with `Run.open`, make or continue one with `Run.create`."""

    def __init__(self, path: Path, header: dict[str, Any]):
        self.path, self.header = path, header

    # -- opening -------------------------------------------------------------------------------------------------
    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run directory for reading.

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
        return cls(path, header)

    @classmethod
    def create(cls, path: str | Path, invocation: Mapping[str, Any]) -> "Run":
        """Make a run directory, or continue the one at `path`; `invocation` is appended to its header.

        Raises:
            UserError: if `path` cannot be written, is a file, holds something else, or is incompatible.
        """
        path = Path(path)
        if (path / "run.json").exists():
            run = cls.open(path)
        else:
            if path.exists() and (not path.is_dir() or any(p.name != "report" for p in path.iterdir())):
                if not path.is_dir() or not _only_leftovers(path):
                    raise UserError(f"'{path}' exists and is not a run directory; choose another --out")
            run = cls(path, {"format": FORMAT, "invocations": []})
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
        """All cells of the run, ordered by what they are (model, dataset, attack, radius), not by time."""
        found = []
        for path in self.path.glob("records/*/cell.json"):
            cell = json.loads(path.read_text())
            if cell["id"] == path.parent.name:
                found.append(cell)
        return sorted(found, key=lambda c: (c["order"], c["id"]) if "order" in c else ([], c["id"]))

    # -- shards ------------------------------------------------------------------------------------------------------
    def shard_path(self, cell: str, shard: int) -> Path:
        return self.path / "records" / cell / f"{shard:05d}.parquet"

    def write_shard(self, cell: str, shard: int, records: Records) -> None:
        """Write one shard atomically; rows keep their order."""
        table = pa.table({name: _column(values) for name, values in records.items()})
        stamp = {"robustcal.format": str(FORMAT), "robustcal.cell": cell, "robustcal.shard": str(shard)}
        table = table.replace_schema_metadata(stamp)
        with atomic_path(self.shard_path(cell, shard)) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)

    def read_shard(self, cell: str, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one shard, checksums verified; of `columns` those that it has, or all.

        Raises:
            DamagedShard: truncated, damaged, foreign.
        """
        path = self.shard_path(cell, shard)
        try:
            if columns is not None:
                columns = [name for name in pq.read_schema(path).names if name in set(columns)]
            table = pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise DamagedShard(f"shard '{path}' is truncated or damaged ({reason})") from None
        stamp = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        expected = {"robustcal.format": str(FORMAT), "robustcal.cell": cell, "robustcal.shard": str(shard)}
        if any(stamp.get(key) != value for key, value in expected.items()):
            raise DamagedShard(f"shard '{path}' belongs to another cell or version")
        return table

    def has(self, cell: str, shard: int) -> bool:
        return self.shard_path(cell, shard).exists()

    def discard_damaged(self, cell: str, shards: int, ids: list[str], size: int) -> list[str]:
        """Move shards aside that cannot be trusted, so that they are computed again. Returns one line for each."""
        lines = []
        for shard in range(shards):
            if not self.has(cell, shard):
                continue
            try:
                table = self.read_shard(cell, shard)
                if table.column("id").to_pylist() != ids[shard * size : (shard + 1) * size]:
                    raise DamagedShard(f"shard '{self.shard_path(cell, shard)}' holds other samples")
            except DamagedShard as damage:
                path = self.shard_path(cell, shard)
                os.replace(path, path.with_suffix(".damaged"))
                lines.append(f"{damage}; it is computed again")
        return lines

    def read(self, cell: str, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """All records of a cell, in sample order. List columns come back as arrays of equal-length rows (N, k).

        `columns` names those to read (a record is mostly logits); columns the records lack are left out.

        Raises:
            UserError: if a shard is missing or damaged.
        """
        shards = sorted(int(p.stem) for p in (self.path / "records" / cell).glob("*.parquet"))
        try:
            tables = [self.read_shard(cell, shard, columns) for shard in shards]
        except DamagedShard as damage:
            raise UserError(f"{damage}; run the same bench command again to recompute it") from None
        if not tables:
            raise UserError(f"cell {cell} of '{self.path}' has no records yet; run the same bench command again")
        table = pa.concat_tables(tables)
        return {name: _array(table.column(name)) for name in table.column_names}

    # -- claims ------------------------------------------------------------------------------------------------------
    def claim(self, cell: str, shard: int) -> bool:
        """Take a missing shard for this process; False if it exists or a live worker holds it."""
        if self.has(cell, shard):
            return False
        path = self._claim_path(cell, shard)
        if self._create_claim(path):
            return not self._lost_race(cell, shard)
        if not self._stale(path):
            return False
        # Exactly one thief wins the rename; the others find nothing to rename.
        grave = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.stale")
        try:
            os.rename(path, grave)
        except FileNotFoundError:
            return False
        grave.unlink(missing_ok=True)
        return self._create_claim(path) and not self._lost_race(cell, shard)

    def renew(self, cell: str, shard: int) -> None:
        """Say that the claim's worker is alive."""
        try:
            os.utime(self._claim_path(cell, shard))
        except FileNotFoundError:
            pass

    def release(self, cell: str, shard: int) -> None:
        self._claim_path(cell, shard).unlink(missing_ok=True)

    def _claim_path(self, cell: str, shard: int) -> Path:
        return self.path / "claims" / f"{cell}-{shard:05d}"

    def _lost_race(self, cell: str, shard: int) -> bool:
        # Between the first look and the claim another worker may have finished the shard.
        if self.has(cell, shard):
            self.release(cell, shard)
            return True
        return False

    @staticmethod
    def _create_claim(path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        return True

    def _stale(self, path: Path) -> bool:
        try:
            text, age = path.read_text(), self._now() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        try:
            owner = json.loads(text)
        except json.JSONDecodeError:
            return age > 10  # killed between creating the claim and writing into it
        if owner.get("host") == socket.gethostname() and not _alive(int(owner.get("pid", -1))):
            return True
        return age > CLAIM_SECONDS

    def _now(self) -> float:
        """The time by the file system's own clock, so that clock skew between hosts does not matter."""
        probe = self.path / "claims" / f".clock.{socket.gethostname()}.{os.getpid()}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _only_leftovers(path: Path) -> bool:
    # A run killed before its header was renamed into place leaves only hidden temporaries.
    return all(p.name.startswith(".run.json") for p in path.iterdir())


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    strip = {"time"}
    return {k: v for k, v in one.items() if k not in strip} == {k: v for k, v in other.items() if k not in strip}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _column(values: Any) -> pa.Array:
    array = np.asarray(values) if not isinstance(values, list) else values
    if isinstance(array, np.ndarray) and array.ndim == 2:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    return pa.array(array)


def _array(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        flat = np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in column.chunks])
        return flat.reshape(-1, width)
    if pa.types.is_list(column.type):
        out = np.empty(len(column), dtype=object)
        out[:] = [np.asarray(v) for v in column.to_pylist()]
        return out
    return column.to_numpy()
