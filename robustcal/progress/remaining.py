"""Time left, from the passes still planned and what passes have cost so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Remaining:
    """Work is counted in forward passes (an input gradient is two more), by kind: a model on images of one size.

    Args:
        todo: kind -> passes still to be made.
    """

    todo: dict[str, float]
    spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # kind -> (passes, seconds of one worker)

    @classmethod
    def of(cls, pending: Mapping[str, float], kinds: Mapping[str, str]) -> Remaining:
        """From the passes pending of each cell, and the kind of each."""
        todo: dict[str, float] = {}
        for cell, passes in pending.items():
            todo[kinds[cell]] = todo.get(kinds[cell], 0.0) + passes
        return cls(todo)

    def done(self, kind: str, passes: float, seconds: float) -> None:
        """So many passes of a kind were made, in so many seconds of one worker."""
        self.todo[kind] = max(0.0, self.todo.get(kind, 0.0) - passes)
        before = self.spent.get(kind, (0.0, 0.0))
        self.spent[kind] = (before[0] + passes, before[1] + seconds)

    def seconds(self, workers: int = 1) -> float | None:
        """Seconds until everything is done with so many workers; None before anything is.

        A kind of which nothing was done yet is taken to cost what the others did on average.
        """
        passes, seconds = (sum(part) for part in zip(*self.spent.values())) if self.spent else (0.0, 0.0)
        if passes <= 0:
            return None
        left = 0.0
        for kind, count in self.todo.items():
            made, took = self.spent.get(kind, (0.0, 0.0))
            left += count * (took / made if made > 0 else seconds / passes)
        return left / max(1, workers)
