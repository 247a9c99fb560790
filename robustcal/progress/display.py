"""The display of a sweep: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from ..sweep.events import CellFailed, Event, Planned, Restarted, ShardDone, Working
from .remaining import Remaining

#: Seconds between two plain lines.
EVERY = 10.0


def hours(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``; ``5e7`` -> ``13,888 h``."""
    minutes, rest = divmod(round(seconds), 60)
    whole, minutes = divmod(minutes, 60)
    if whole >= 100:
        return f"{whole:,} h"
    return f"{whole} h {minutes} min" if whole else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Display:
    """Called with every event of a sweep; a context that puts the terminal back.

    Args:
        verbose: a line for every shard.
        quiet: failures and warnings only.
        live: bars that move; by default where stderr is a terminal.
        stream: where plain lines go that are no warnings; by default stdout.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False, live: bool | None = None, stream: Any = None):
        self.verbose, self.quiet, self.stream = verbose, quiet, stream
        self.live = sys.stderr.isatty() if live is None else live
        self.plan = Planned(0, 0, 0, 0)
        self.left = Remaining({})
        self.done, self.last = 0, 0.0
        self.workers: dict[int, Any] = {}  # worker -> its bar
        self.titles: dict[str, str] = {}
        self.said: set[str] = set()
        self.bars: Any = None
        self.whole: Any = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Planned):
            self.planned(event)
        elif isinstance(event, ShardDone):
            self.finished(event)
        elif isinstance(event, Working):
            self.working(event)
        elif isinstance(event, CellFailed):
            self.line(f"robustcal: failed: {event}")
        elif isinstance(event, Restarted):
            self.line(f"robustcal: a worker died ({event.reason}) and was started again")

    def line(self, text: str) -> None:
        """A line on stderr, above the bars; once."""
        if text in self.said:
            return
        self.said.add(text)
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def planned(self, event: Planned) -> None:
        """Say what there is to do."""
        self.__exit__()
        for note in event.notes:
            self.line(f"robustcal: {note}")
        self.plan, self.done, self.workers = event, 0, {}
        self.titles = {**self.titles, **event.titles}
        self.left = Remaining.of(event.passes, event.kinds)
        if self.quiet:
            return
        there = f"{event.pending} shards to compute, {event.shards - event.pending} already there"
        print(f"{event.cells} cells, {event.samples} samples; {there}", file=self.stream, flush=True)
        if self.live and event.pending:
            self._start_bars(event.pending)

    def _start_bars(self, shards: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"))
        self.bars = Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=Console(stderr=True))
        self.whole = self.bars.add_task("sweep", total=shards, unit="shards", left="")
        self.bars.start()

    def working(self, event: Working) -> None:
        """Show how far a worker is within its shard."""
        if self.bars is None or self.quiet:
            return
        title = self.titles.get(event.cell, event.cell)
        if event.worker not in self.workers:
            self.workers[event.worker] = self.bars.add_task(title, total=None, unit="passes", left="")
        total = max(round(self.plan.forwards.get(event.cell, 0) * event.batches), event.passes) or None
        self.bars.update(self.workers[event.worker], description=title, completed=event.passes, total=total)

    def finished(self, event: ShardDone) -> None:
        """Count a shard."""
        self.done += 1
        per_sample = self.plan.passes_each.get(event.cell, 0.0)
        self.left.done(self.plan.kinds.get(event.cell, ""), per_sample * (event.n + event.skipped), event.seconds)
        text = self.time_left()
        if self.quiet:
            return
        if self.verbose:
            title = self.titles.get(event.cell, event.cell)
            self.line(f"{title}: shard {event.shard}, {event.n} samples in {event.seconds:.1f} s")
        now = time.monotonic()
        if self.bars is not None:
            self.bars.update(self.whole, completed=self.done, left=text)
        elif now - self.last > EVERY or self.done == self.plan.pending:
            self.last = now
            print(f"{self.done}/{self.plan.pending} shards, {text}", file=self.stream, flush=True)

    def time_left(self) -> str:
        """``about 3 min left``, from the passes still planned and what passes of their kind have cost."""
        left = self.left.seconds(self.plan.workers)
        return "" if left is None else f"about {hours(left)} left"
