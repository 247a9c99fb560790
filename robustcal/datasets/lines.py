"""Text files whose line number means something, and the count of what a source leaves out: nothing is lost unsaid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..types import UserError


def read_lines(path: Path, meaning: str) -> list[str]:
    """The lines of a UTF-8 text file, as they are.

    A line ends at ``\\n`` or ``\\r\\n`` and at no other of Unicode's line separators; a byte order mark at the start is
    dropped; blanks and empty lines stay, because the number of a line may be a label.

    Raises:
        UserError: if the file is missing, empty, no UTF-8, or has a carriage return inside a line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing; it holds {meaning}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as UTF-8 text: {error}") from None
    if not text.strip():
        raise UserError(f"'{path}' is empty; it holds {meaning}")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    broken = next((number for number, line in enumerate(lines, 1) if "\r" in line), None)
    if broken is not None:
        raise UserError(f"line {broken} of '{path}' holds a carriage return; lines end at \\n or \\r\\n")
    return lines


def without_empty_end(lines: Sequence[str]) -> list[str]:
    """The lines without the empty ones at their end."""
    kept = list(lines)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def whole_number(text: str) -> int | None:
    """The number that ASCII digits spell, or None: ``str.isdigit`` is also true of texts that `int` cannot read."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


class LeftOut:
    """Counts what a source finds and does not read as a sample of its own, by kind, with the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count one or more; `kind` says what they are and what was done with them."""
        self.counts[kind] += count
        self.first.setdefault(kind, example)

    def notes(self) -> list[str]:
        """One line per kind: ``files of suffix .heic, not read: 3, such as cat/a.heic``."""
        return [f"{kind}: {count}, such as {self.first[kind]}" for kind, count in self.counts.items()]
