"""A submission's file: a zip of stored members. Those of strangers are read whole or refused; nothing is extracted.

Members are stored without compression, so that the bytes depend on their content only and none can unpack to more than it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records.store import write_atomically
from ..types import UserError

#: What may be in a submission.
NAMES = re.compile(r"manifest\.json|card\.toml|cells\.json|signoff\.json|records/[0-9a-f]{16}\.parquet")
MANIFEST = "manifest.json"
#: Bytes of a file, and members in it.
MOST_BYTES, MOST_MEMBERS = 512 * 2**20, 20_000
#: Bytes of a member that is text.
MOST_TEXT = {"manifest.json": 2**22, "card.toml": 2**20, "signoff.json": 2**22, "cells.json": 2**26}
KIND, VERSION = "robustcal submission", 1
EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, members: Mapping[str, bytes]) -> str:
    """Write members and their manifest; the same members make the same bytes. Returns the content hash.

    Raises:
        UserError: the file cannot be written.
    """
    content, sums = content_of(members)
    about = {"kind": KIND, "version": VERSION, "content": content, "members": sums}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [(MANIFEST, as_json(about)), *sorted(members.items())]:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data)
    write_atomically(path, buffer.getvalue())
    return content


def content_of(members: Mapping[str, bytes]) -> tuple[str, dict[str, str]]:
    """The content hash of members, over their names and hashes, and those hashes."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())}
    return "sha256:" + hashlib.sha256(as_json(sums)).hexdigest(), sums


def as_json(value: Any) -> bytes:
    """JSON whose bytes depend on the value only."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_archive(path: Path) -> tuple[str, dict[str, bytes]]:
    """Content hash and members of a submission, the manifest left out, every hash compared.

    Raises:
        UserError: one line that names the file and what is wrong with it.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MOST_BYTES:
            raise refused(path, f"it is no file of at most {MOST_BYTES // 2**20} MiB")
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, size)
    except OSError as error:
        raise refused(path, error.strerror or "it cannot be read") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        raise refused(path, f"it is no whole zip file ({str(error)[:80]})") from None
    about = parsed(members.pop(MANIFEST, b"null"), path, MANIFEST)
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise refused(path, f"it has no {MANIFEST} of a submission; robustcal pack makes one")
    if about.get("version") != VERSION:
        raise refused(path, f"its format {str(about.get('version'))[:20]} is not {VERSION}; use the robustcal that made it")
    content, sums = content_of(members)
    if about.get("members") != sums or about.get("content") != content:
        raise refused(path, "its hashes are not those of its members: it was changed after it was packed")
    return content, members


def _members(archive: zipfile.ZipFile, path: Path, size: int) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS or sum(entry.file_size for entry in entries) > size:
        raise refused(path, "its members are more than it holds")
    found: dict[str, bytes] = {}
    for entry in entries:
        mode = entry.external_attr >> 16
        if not NAMES.fullmatch(entry.filename) or entry.filename in found:
            raise refused(path, f"it has a member {entry.filename[:60]!r}, which no submission has (or has it twice)")
        if entry.flag_bits & 0x1 or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise refused(path, f"its member {entry.filename} is encrypted or no file")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise refused(path, f"its member {entry.filename} is compressed; a submission's are stored")
        if entry.file_size > MOST_TEXT.get(entry.filename, MOST_BYTES):
            raise refused(path, f"its {entry.filename} is larger than a submission's can be")
        found[entry.filename] = archive.read(entry)
    return found


def parsed(data: bytes, path: Path, name: str) -> Any:
    """JSON of a stranger: no nan, no key twice, no depth or number that is meant to hurt.

    Raises:
        UserError: it is not that.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text[:20]} is no number")
        return value

    try:
        return json.loads(data.decode(), object_pairs_hook=once, parse_constant=number, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise refused(path, f"its {name} is not JSON as it should be ({str(error)[:80]})") from None


def refused(path: Path, why: str) -> UserError:
    """The one-line error of a submission that is not read."""
    return UserError(f"submission '{path.name}' is refused: {why}")
