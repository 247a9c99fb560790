"""What a sweep prints while it works: a bar, or plain lines, with the time left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .dry_run import hours

if TYPE_CHECKING:
    from ..sweep.events import Event, Planned, ShardDone


class Progress:
    """A bar with time left on a terminal; plain lines, at most one every ten seconds, elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.done, self.total, self.last = 0, 0, 0.0
        self.start: float | None = None  # when the first shard was begun: not the loading of models before it
        self.said: set[str] = set()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, event: Event) -> None:
        from ..sweep import events

        if isinstance(event, events.Planned):
            self.planned(event)
        elif isinstance(event, events.ShardDone):
            self.finished(event)
        elif isinstance(event, events.CellFailed):
            self.line(f"robustcal: failed: {event.reason if event.title in event.reason else f'{event.title}: {event.reason}'}")
        else:
            self.line(f"robustcal: a worker died ({event.reason}) and was started again")

    def line(self, text: str) -> None:
        """A line on stderr, above the bar; once."""
        if text in self.said:
            return
        self.said.add(text)
        if self.bar is not None:
            self.bar.clear()
        print(text, file=sys.stderr, flush=True)

    def planned(self, event: Planned) -> None:
        """Say what there is to do."""
        for line in event.notes:
            self.line(f"robustcal: {line}")
        self.total, self.done, self.start = event.pending, 0, None
        kept = event.shards - event.pending
        there = f"{event.pending} shards to compute, {kept} already there"
        print(f"{event.cells} cells, {event.samples} samples; {there}", flush=True)
        if sys.stderr.isatty() and self.total:
            from tqdm import tqdm

            self.__exit__()
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} shards [{elapsed}{postfix}]"
            self.bar = tqdm(total=self.total, unit="shard", bar_format=form)

    def finished(self, event: ShardDone) -> None:
        """Count a shard."""
        now = time.monotonic()
        self.start = now - event.seconds if self.start is None else self.start
        self.done += 1
        left = f"about {hours((now - self.start) / self.done * (self.total - self.done))} left"
        if self.bar is not None:
            self.bar.set_postfix_str(left, refresh=False)
            self.bar.update()
        elif now - self.last > 10 or self.done == self.total:
            self.last = now
            print(f"{self.done}/{self.total} shards, {left}", flush=True)

