"""What a report says beside its numbers: cells that failed or are unfinished, remarks on data and classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .merge import Source


def without_failed(sources: Sequence[Source], notes: list[str]) -> list[Source]:
    """The cells that are not unfinished because they failed, and that have records; a note says which are left out."""
    reasons = {run: run.failures() for run in dict.fromkeys(source.run for source in sources)}
    kept = []
    for source in sources:
        cell, rows = source.cell, sum(source.run.present(source.cell.id).values())
        said = [reasons[source.run].get(cell.id), *source.run.remarks(cell.id).get("failed", ())]
        reason = next(filter(None, said), None) if rows < cell.n else None
        if reason:
            notes.append(f"failed: {cell.title}: {reason}")
        elif rows < cell.n:
            notes.append(f"unfinished: {cell.title}: {rows} of {cell.n} samples")
        if rows and not reason:
            kept.append(source)
    return kept


def remarks_of(sources: Iterable[Source]) -> list[str]:
    """What was noticed about data sets and about the classes of models on them, a line each."""
    lines: dict[str, None] = {}
    for source in sources:
        remarks, names = source.run.remarks(source.cell.id), source.names
        lines |= dict.fromkeys(f"data: '{names['dataset']}': {line}" for line in remarks.get("data", ()))
        place = f"{names['model']} on '{names['dataset']}'"
        lines |= dict.fromkeys(f"classes: {place}: {line}" for line in remarks.get("classes", ()))
    return list(lines)


def condensed(notes: list[str], most: int = 3) -> list[str]:
    """The notes, with no more than `most` of one kind spelled out."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(note.split(":")[0], []).append(note)
    short = []
    for kind, lines in kinds.items():
        short += lines[:most] + ([f"{kind}: and {len(lines) - most} more"] if len(lines) > most else [])
    return short
