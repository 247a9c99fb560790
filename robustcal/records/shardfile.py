"""One shard on the disk: a parquet file, written whole or not at all, recognised by its footer, read by its checksum.

Parquet's own checksums cover the pages only; a damaged footer could still rename a column. So the footer holds one more
entry, `SUM`: the CRC-32 of the whole file, its own eight digits counted as zeros. A file without one is damaged.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..cell import SHARD
from ..types import Records, UserError
from .header import FORMAT

NAME = re.compile(r"([0-9]{5,})(?:-([0-9]{1,3}))?\.parquet")
TEMPORARY = ".tmp"
#: The end of a parquet file: the length of its footer in four bytes, and a magic word.
TAIL, MAGIC = 8, b"PAR1"
SKIPPED, SUM = "robustcal.skipped", "robustcal.crc32"
ZEROS = "0" * 8


class DamagedShard(UserError):
    """A shard file that is truncated, damaged, or belongs to another cell. Its text names the file and the reason."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"shard '{path}' {reason}")
        self.path, self.reason = path, reason


def name_of(shard: int, rows: int) -> str:
    """The name of a shard's file."""
    return f"{shard:05d}.parquet" if rows == SHARD else f"{shard:05d}-{rows}.parquet"


def all_in(folder: Path) -> list[tuple[int, int, Path]]:
    """(shard, rows, path) of every file of a cell's folder; several of one shard until the shorter ones are removed."""
    try:
        names = filter(None, map(NAME.fullmatch, os.listdir(folder)))
    except FileNotFoundError:
        return []
    return [(int(name[1]), int(name[2] or SHARD), folder / name[0]) for name in names]


def stamp(path: Path) -> dict[str, str]:
    """What a shard that lies there says about itself in its footer."""
    ((shard, rows),) = NAME.findall(path.name)
    facts = {"format": FORMAT, "cell": path.parent.name, "shard": int(shard), "rows": int(rows or SHARD)}
    return {f"robustcal.{name}": str(value) for name, value in facts.items()}


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place.

    Raises:
        UserError: if the disk is full or the folder cannot be written. Nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"cannot write to '{path}': {reason}; what is finished is kept") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Let a rename in a folder reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, records: Records, skipped: Sequence[str] = ()) -> None:
    """Write one shard atomically; rows keep their order. `skipped`: ids without a row, their image unreadable."""
    table = pa.table({name: column(values) for name, values in records.items()})
    said = {SKIPPED: json.dumps(list(skipped))} if skipped else {}
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({**stamp(path), **said, SUM: ZEROS})
    pq.write_table(table, sink, compression=_compression(table.schema), use_dictionary=False, write_statistics=False)
    write_atomically(path, seal(sink.getvalue().to_pybytes()))


def _compression(schema: pa.Schema) -> dict[str, str]:
    """The logits, most of the bytes and seldom read, as small as possible; everything else fast to read."""
    leaf = {True: ".list.element", False: ""}
    lists = {field.name: pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type) for field in schema}
    return {f"{name}{leaf[is_list]}": "zstd" if is_list else "lz4" for name, is_list in lists.items()}


def seal(data: bytes) -> bytes:
    """A shard's bytes with their checksum filled in."""
    start, end = _place_of_sum(data)
    return data[:start] + _sum(data, start, end) + data[end:]


def _place_of_sum(data: bytes) -> tuple[int, int]:
    key = _spelled(SUM, ZEROS).removesuffix(ZEROS.encode() + b"\x00")
    start = data.rfind(key) + len(key)
    return (start, start + len(ZEROS)) if start >= len(key) else (0, 0)


def _sum(data: bytes, start: int, end: int) -> bytes:
    return b"%08x" % zlib.crc32(data[end:], zlib.crc32(ZEROS.encode(), zlib.crc32(data[:start])))


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one shard, its checksum verified; of `columns` those that it has, or all.

    Raises:
        DamagedShard: truncated, damaged, or stamped otherwise.
        UserError: the file system does not give it out.
    """
    try:
        data = path.read_bytes()
        start, end = _place_of_sum(data)
        if not end or data[start:end] != _sum(data, start, end):
            raise DamagedShard(path, f"is damaged or truncated ({'its checksum does not hold' if end else 'it has no checksum'})")
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            names = file.schema_arrow.names
            chosen = names if columns is None else [name for name in names if name in set(columns)]
            table = file.read(chosen, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):  # replaced by a longer one meanwhile: the caller looks again
            raise
        if getattr(error, "errno", None):  # the system says so, not the format: nothing is known about the content
            raise UserError(f"shard '{path}' cannot be read: {error.strerror}") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DamagedShard(path, f"is damaged or truncated ({reason})") from None
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if not metadata.items() >= stamp(path).items():
        raise DamagedShard(path, "belongs to another cell or version")
    return table


def check(path: Path) -> None:
    """Compare a shard's footer with its place, without reading a value: a tenth of the time that reading takes.

    Raises:
        DamagedShard: the end is missing (truncated), or the footer is another cell's or shard's.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read(TAIL)
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != MAGIC or length > size - TAIL:
                raise DamagedShard(path, "is damaged or truncated (it has no footer)")
            file.seek(size - TAIL - length)
            footer = file.read(length)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"shard '{path}' cannot be read: {error.strerror}") from None
    if not all(_spelled(key, value) in footer for key, value in stamp(path).items()):
        read(path, ())  # the slow way has the last word


def skipped_in(path: Path) -> list[str]:
    """The ids of samples that a shard left out because their image could not be read."""
    names: list[str] = json.loads((pq.read_schema(path).metadata or {}).get(SKIPPED.encode(), b"[]"))
    return names


def _spelled(key: str, value: str) -> bytes:
    """How a parquet footer spells a key and its value: two Thrift strings, fields 1 and 2 of a struct."""
    pieces = [bytes([0x18, len(text.encode())]) + text.encode() for text in (key, value)]
    return b"".join(pieces) + b"\x00"


def column(values: Any) -> pa.Array:
    """Values of a column as they are stored: (N, k) as lists of equal length."""
    array = np.asarray(values) if not isinstance(values, list) else values
    if isinstance(array, np.ndarray) and array.ndim == 2:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    return pa.array(array)


def as_array(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array: (N,), or (N, k) for lists of equal length, or (N,) of arrays for others."""
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        flat = np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in column.chunks])
        return np.asarray(flat).reshape(-1, width)
    if pa.types.is_list(column.type):
        out = np.empty(len(column), dtype=object)
        out[:] = [np.asarray(v) for v in column.to_pylist()]
        return out
    plain: np.ndarray = column.to_numpy()
    return plain
