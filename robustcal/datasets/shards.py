"""Tar shards read in place: members are found by their headers and fetched by offset; nothing is extracted."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..types import UserError

GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 512
#: Images hardly shrink when packed; a gzip file that grows more than this was made to fill the disk.
BOMB = 200


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of a shard: its name, and where its bytes are."""

    shard: Shard
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
        self.not_files: list[str] = []  #: links and special files that `members` came across
        try:
            self.file: BinaryIO = _seekable(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"shard '{path}' cannot be read: {_reason(error)}") from None

    def members(self) -> Iterator[Member]:
        """The regular files of the shard in stored order; reads headers only.

        Raises:
            UserError: if a header is damaged, or the shard ends before its end-of-archive mark.
        """
        handle, end = self.file.fileno(), os.fstat(self.file.fileno()).st_size
        at = 0
        override: dict[str, str] = {}
        while at < end:
            header = os.pread(handle, BLOCK, at)
            if header == bytes(BLOCK):
                return self._check_end(handle, at)
            name, size, kind = self._parse(header, at)
            name, size = override.get("path", name), int(override.get("size", size))
            data, at = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
            if at > end:
                raise UserError(f"shard '{self.path}' ends inside its member '{name}'; it is truncated")
            if kind == b"x":
                override = self._pax(os.pread(handle, size, data), data)
                continue
            if kind == b"L":
                override = {"path": os.pread(handle, size, data).rstrip(b"\0").decode("utf-8", "replace")}
                continue
            override = {}
            if kind in (b"0", b"\0", b"7"):
                yield Member(self, name.removeprefix("./"), data, size)
            elif kind not in (b"5", b"g", b"K"):  # a folder, headers for all, the long name of a link
                self.not_files.append(name)
        raise UserError(f"shard '{self.path}' has no end-of-archive mark; it is truncated")

    def _check_end(self, handle: int, at: int) -> None:
        """Nothing but zeros may follow the end-of-archive mark: a second archive put behind it would go unread."""
        while piece := os.pread(handle, 1 << 20, at):
            if piece.strip(b"\0"):
                raise UserError(f"shard '{self.path}' goes on behind its end: put together from several? unpack and repack")
            at += len(piece)

    def _parse(self, header: bytes, at: int) -> tuple[str, int, bytes]:
        """Name, size and type flag of a header block; its checksum must hold."""
        try:
            expected = int(header[148:156].strip(b" \0") or b"-1", 8)
            valid = len(header) == BLOCK and expected == sum(header) - sum(header[148:156]) + 8 * 32
            octal = header[124] < 128  # members of 8 GiB and more have a binary size
            size = int(header[124:136].strip(b" \0") or b"0", 8) if octal else int.from_bytes(header[125:136])
        except (ValueError, IndexError):
            valid = False
        if not valid:
            raise UserError(f"shard '{self.path}' is not a whole tar file: no valid header at byte {at}")
        prefix = header[345:500] if header[257:263] == b"ustar\0" else b""
        parts = [part.partition(b"\0")[0].decode("utf-8", "replace") for part in (prefix, header[:100])]
        return "/".join(part for part in parts if part), size, header[156:157]

    def _pax(self, data: bytes, at: int) -> dict[str, str]:
        """The records "length key=value" of a POSIX extended header."""
        fields = {}
        while data:
            digits, blank, _ = data.partition(b" ")
            length = int(digits) if blank and digits.isdigit() else 0
            key, equals, value = data[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
            if not equals or (key == b"size" and not value.isdigit()):
                raise UserError(f"shard '{self.path}' is not a whole tar file: bad extended header at byte {at}")
            fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            data = data[length:]
        return fields


def _seekable(path: Path) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115 - stays open for the members
    if file.read(2) != GZIP_MAGIC:
        file.seek(0)
        return file
    file.seek(0)
    plain = tempfile.TemporaryFile(prefix="robustcal-")  # noqa: SIM115
    allowed = max(64 << 20, BOMB * os.fstat(file.fileno()).st_size)
    with file, gzip.open(file) as packed:
        while piece := packed.read(1 << 20):
            if plain.tell() + len(piece) > allowed:
                raise OSError(f"it unpacks to more than {allowed >> 20} MiB, {BOMB} times its size")
            plain.write(piece)
    plain.seek(0)
    return plain


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
