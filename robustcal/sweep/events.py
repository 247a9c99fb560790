"""What an engine tells its caller while it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Planned:
    """The plan is made: what there is to do, and what was noticed about what is there already."""

    cells: int
    samples: int
    shards: int
    pending: int  #: shards still to be computed
    notes: tuple[str, ...] = ()
    workers: int = 1
    passes: Mapping[str, float] = field(default_factory=dict)  #: cell -> forward passes still to be made, a gradient being two
    passes_each: Mapping[str, float] = field(default_factory=dict)  #: cell -> the same for one sample
    forwards: Mapping[str, float] = field(default_factory=dict)  #: cell -> forward passes for one sample alone
    kinds: Mapping[str, str] = field(default_factory=dict)  #: cell -> what its passes cost the same as
    titles: Mapping[str, str] = field(default_factory=dict)  #: cell -> a short name for people


@dataclass(frozen=True)
class Working:
    """A worker is at a shard: `passes` through the model so far, on each of `batches` parts one after the other."""

    worker: int
    cell: str
    shard: int
    passes: int
    batches: int


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
    hangs: bool = False  #: they cannot even be counted: reading them does not end

    def __str__(self) -> str:
        return self.reason if self.title in self.reason else f"{self.title}: {self.reason}"


@dataclass(frozen=True)
class Restarted:
    """A worker died and was started again."""

    reason: str


Event = Planned | Working | ShardDone | CellFailed | Restarted
