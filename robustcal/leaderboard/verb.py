"""``robustcal leaderboard``: a folder of pages from submissions, sign-offs and published tables."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..records.signoff import SignOff, read_signoff
from ..records.store import write_atomically
from ..types import UserError
from .archive import refused
from .boards import Entry, boards_of, entry_of
from .model_page import model_page
from .nouns import Board, Contender
from .published import published
from .reading import Submission, read_submission
from .site import index

PAGE = re.compile(r"[0-9a-f]{12}-[0-9]+\.html")


@dataclass(frozen=True)
class Made:
    """What was written, and a line for every file that was refused."""

    index: Path
    models: int
    tables: int
    refused: tuple[str, ...]


def leaderboard(
    files: Sequence[str | Path], out: str | Path, *, tables: str | None = None, title: str = "robustcal leaderboard",
    resamples: int = 1000, apart: bool = True,
) -> Made:  # fmt: skip
    """Write the site of these files into a folder; pages of an earlier one there that are no longer of it are removed.

    Args:
        files: submissions, and sign-offs (``*.json``) that whoever runs the board made or trusts; the last one counts.
        apart: read tables of strangers in a process of their own, see `read_submission`.
        tables: a comparison whose published tables are added.

    Raises:
        UserError: the folder cannot be written, no such tables, or no file could be read.
    """
    rows, numbers = published(tables) if tables else ([], [])
    paths, lines = [Path(file) for file in files], list[str]()
    signed = [one for path in paths if path.suffix == ".json" if (one := _signed(path, lines))]
    entries: list[Entry] = []
    held: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="robustcal-") as folder:
        for at, path in enumerate(path for path in paths if path.suffix != ".json"):
            try:
                submission = read_submission(path, Path(folder) / str(at), apart=apart)
                if submission.content in held:
                    raise refused(path, f"it is '{held[submission.content]}' once more")
                entries.append(_entry(path, submission, _of(submission, signed), resamples))
                held[submission.content] = path.name
            except UserError as error:
                lines.append(" ".join(str(error).split()))
    if not entries and not rows:
        raise UserError("; ".join(lines) or "no submission was given; robustcal pack makes one")
    boards = boards_of(entries, numbers)
    contenders = {one.key: one for one in [*(one for entry in entries for one in entry.contenders), *rows]}
    written = _write(Path(out), title, boards, contenders)
    return Made(written, len(contenders), len(boards), tuple(lines))


def _entry(path: Path, submission: Submission, checked: SignOff | None, resamples: int) -> Entry:
    try:
        return entry_of(submission, checked, resamples)
    except Exception as error:  # what no check foresaw costs one submission, not the board
        why = " ".join(str(error).split())[:120]
        raise refused(path, f"its numbers cannot be computed ({type(error).__name__}: {why})") from None


def _signed(path: Path, lines: list[str]) -> SignOff | None:
    try:
        return read_signoff(path.read_bytes(), path.name)
    except OSError as error:
        lines.append(f"sign-off '{path.name}' cannot be read: {error.strerror}")
    except UserError as error:
        lines.append(" ".join(str(error).split()))
    return None


def _of(submission: Submission, signed: Sequence[SignOff]) -> SignOff | None:
    return next((one for one in reversed(signed) if one.run == submission.records), None)


def _write(out: Path, title: str, boards: Sequence[Board], contenders: dict[str, Contender]) -> Path:
    pages = {f"{key}.html": model_page(one, boards) for key, one in contenders.items() if one.submission}
    write_atomically(out / "index.html", index(title, boards, contenders).encode())
    for name, text in pages.items():
        write_atomically(out / "models" / name, text.encode())
    for old in (out / "models").glob("*.html"):
        if PAGE.fullmatch(old.name) and old.name not in pages:
            old.unlink()
    return out / "index.html"
