"""What shards cost in seconds: beside the records, since it differs from run to run and they do not.

    RUN/costs/<machine>-<process>.csv    a line for every shard that the process computed: cell, shard, seconds

One file for each process, which only appends: many may write at once, and a process that is killed spoils its last line
at most, which is passed over.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

FOLDER = "costs"


def note(run: Path, cell: str, shard: int, seconds: float) -> None:
    """Add a line. A folder that cannot be written costs the line, not the shard."""
    with suppress(OSError):
        (run / FOLDER).mkdir(exist_ok=True)
        with (run / FOLDER / f"{socket.gethostname()}-{os.getpid()}.csv").open("a") as file:
            file.write(f"{cell},{shard},{seconds:.6f}\n")


def seconds_of(run: Path) -> dict[str, dict[int, float]]:
    """Cell -> shard -> seconds. Of a shard that was computed several times it is the longest: the others held fewer samples."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted((run / FOLDER).glob("*.csv")):
        for line in path.read_text(errors="replace").splitlines(keepends=True):
            with suppress(ValueError):
                cell, shard, seconds = line.split(",")
                if line.endswith("\n"):
                    shards = found.setdefault(cell, {})
                    shards[int(shard)] = max(float(seconds), shards.get(int(shard), 0.0))
    return found
