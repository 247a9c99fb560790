"""What an engine tells its caller while it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Planned:
    """The plan is made: what there is to do, and what was noticed about what is there already."""

    cells: int
    samples: int
    shards: int
    pending: int  #: shards still to be computed
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardDone:
    """A shard was computed and written. `n` rows; `skipped` samples had unreadable images."""

    cell: str
    shard: int
    n: int
    skipped: int
    seconds: float


@dataclass(frozen=True)
class CellFailed:
    """A cell cannot be computed; the others go on."""

    cell: str
    title: str
    reason: str
    dataset: str = ""  #: set where images of the dataset do not decode: its other cells are left as well


@dataclass(frozen=True)
class Restarted:
    """A worker died and was started again."""

    reason: str


Event = Planned | ShardDone | CellFailed | Restarted
