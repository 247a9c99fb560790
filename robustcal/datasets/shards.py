"""Tar shards read in place: members are found by their headers and fetched by offset; nothing is extracted."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator

from ..types import UserError

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Member:
    """One regular file of a shard: its name, and where its bytes are."""

    shard: "Shard"
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes of this member; safe from several threads at once."""
        data = os.pread(self.shard.file.fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise UserError(f"shard '{self.shard.path}' ends inside its member '{self.name}'; it is truncated")
        return data

    def __str__(self) -> str:
        return f"{self.shard.path}:{self.name}"


class Shard:
    """A tar file, plain or gzipped. A gzipped one is unpacked to an unnamed temporary file: gzip has no offsets.

    Raises:
        UserError: naming the file, if it is missing, damaged or no tar.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file: BinaryIO = _seekable(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"shard '{path}' cannot be read: {_reason(error)}") from None

    def members(self) -> Iterator[Member]:
        """The regular files of the shard in stored order; reads headers only."""
        try:
            with tarfile.open(fileobj=self.file, mode="r:") as archive:
                while (entry := archive.next()) is not None:
                    archive.members.clear()  # tarfile would keep every header: memory must not grow with the shard
                    if entry.isreg():
                        yield Member(self, entry.name.removeprefix("./"), entry.offset_data, entry.size)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"shard '{self.path}' is not a whole tar file: {_reason(error)}") from None


def _seekable(path: Path) -> BinaryIO:
    file = open(path, "rb")
    if file.read(2) != GZIP_MAGIC:
        file.seek(0)
        return file
    file.seek(0)
    plain = tempfile.TemporaryFile(prefix="robustcal-")
    with file, gzip.open(file) as packed:
        shutil.copyfileobj(packed, plain, 1 << 20)
    plain.seek(0)
    return plain


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
