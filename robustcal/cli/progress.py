"""What a long command prints while it works: a bar or plain lines for a sweep, a line per event for a training run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any


def print_training(event: Mapping[str, Any]) -> None:
    """One line for each event of the trainer."""
    print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in event.items()), flush=True)


class Progress:
    """A bar with time left on a terminal; plain lines, at most one every ten seconds, elsewhere."""

    def __init__(self) -> None:
        self.bar, self.done, self.total, self.last = None, 0, 0, 0.0
        self.start: float | None = None  # when the first shard was begun: not the loading of models before it

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "plan":
            self.planned(event)
        elif event["event"] == "shard":
            self.finished(event)
        elif event["event"] == "restart":
            print(f"robustcal: a worker died (status {event['exitcode']}) and was started again", file=sys.stderr)

    def planned(self, event: Mapping[str, Any]) -> None:
        """Say what there is to do."""
        for line in event["warnings"]:
            print(f"robustcal: {line}", file=sys.stderr)
        self.total, self.done, self.start = event["pending"], 0, None
        kept = event["shards"] - event["pending"]
        print(f"{event['cells']} cells, {event['samples']} samples; {event['pending']} shards to compute, {kept} already there", flush=True)
        if sys.stderr.isatty() and self.total:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit="shard", bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} shards [{elapsed}{postfix}]")

    def finished(self, event: Mapping[str, Any]) -> None:
        """Count a shard."""
        now = time.monotonic()
        self.start = now - event["seconds"] if self.start is None else self.start
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(self.left(now), refresh=False)
            self.bar.update()
        elif now - self.last > 10 or self.done == self.total:
            self.last = now
            print(f"{self.done}/{self.total} shards, {self.left(now)}", flush=True)

    def left(self, now: float) -> str:
        """The time left if the shards to come take as long as those that are done."""
        from .dry_run import hours

        return f"about {hours((now - self.start) / self.done * (self.total - self.done))} left"
