"""What the page says of the whole run: what was measured, when, by which versions and commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..records.store import Run
from .captions import protocol
from .evaluate import Results
from .explain import command
from .merge import record_time


def lead(results: Results) -> str:
    """One sentence about what was measured."""

    def count(number: int, word: str) -> str:
        return f"{number} {word}" + ("" if number == 1 else "s")

    attacks = [name for name in results.values("attack") if not name.startswith("worst")]
    n = sorted({cell.n for cell in results.cells})
    each = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}" if n else "0"
    return (
        "How accurate, and how honest about its own confidence, is a zero-shot classifier when someone perturbs the"
        " image? "
        f"{count(len(results.values('model')), 'model')}, {count(len(results.values('dataset')), 'data set')}, "
        f"{count(len(attacks), 'attack')}, {each} samples a data set."
    )


def made(results: Results) -> str:
    """When the records were written, and by which versions. Nothing of the moment in which the page is made."""
    written = max((record_time(cell.run, id) for cell in results.cells for id in cell.meta.members or (cell.id,)), default=0.0)
    day = datetime.fromtimestamp(written, UTC).date().isoformat() if written else ""
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    told = [f"{name} {versions[name]}" for name in ("robustcal", "torch", "python") if name in versions]
    return " · ".join(filter(None, [f"Records of {day}" if day else "", *told]))


def captions(results: Results) -> list[str]:
    """The protocol of the run, one paragraph per kind of task."""
    tasks = dict.fromkeys(cell.meta.task for cell in results.cells)
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    return [protocol([cell.meta for cell in results.cells if cell.meta.task == task], versions) for task in tasks]


def told_run(run: Run) -> dict[str, Any]:
    versions = run.header.get("versions", {})
    return {
        "name": run.path.resolve().name,
        "commands": [command(invocation) for invocation in run.header.get("invocations", [])],
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    }
