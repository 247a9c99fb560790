"""The header of a run directory, ``run.json``: its format, and every call that added to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..types import UserError

FORMAT = 2


def read_header(path: Path) -> dict[str, Any]:
    """The header of the run directory at `path`.

    Raises:
        UserError: if there is none, or an incompatible version made it.
    """
    file = path / "run.json"
    if not file.is_file():
        raise UserError(f"'{path}' is not a run directory: it has no run.json")
    try:
        header: dict[str, Any] = json.loads(file.read_text())
        made_by = header["format"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{file}' is not a robustcal run header; choose another --out") from None
    if made_by != FORMAT:
        raise UserError(
            f"'{path}' was made by an incompatible version (record format {made_by}, this one reads {FORMAT});"
            f" use robustcal {header.get('versions', {}).get('robustcal', '?')} or another --out"
        )
    return header


def extended_header(path: Path, invocation: Mapping[str, Any]) -> dict[str, Any]:
    """The header of a new run directory, or of the one at `path`, with this invocation as its last; an equal one moves there.

    Raises:
        UserError: if `path` is a file, holds something else, or is incompatible.
    """
    file = path / "run.json"
    if not file.exists() and not _is_free(path) and not file.exists():  # a second driver may have just made it
        raise UserError(f"'{path}' exists and is not a run directory; choose another --out")
    header: dict[str, Any] = read_header(path) if file.exists() else {"format": FORMAT}
    held = header.get("invocations", [])
    again = [other for other in held if other == invocation] or [dict(invocation)]
    header["invocations"] = [other for other in held if other != invocation] + again[:1]
    return {**header, "versions": invocation.get("versions", header.get("versions", {}))}


def _is_free(path: Path) -> bool:
    # A run killed before its header was renamed into place leaves claims and hidden temporaries only.
    mine = (".run.json", "report", "claims")
    return not path.exists() or (path.is_dir() and all(p.name.startswith(mine) for p in path.iterdir()))


def as_json(value: Any) -> bytes:
    """Readable JSON, ended by a newline."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
