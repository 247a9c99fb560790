"""The nouns of a leaderboard: who stands on it, what one has in one column, and what a table is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..cell import Cell
from ..records.signoff import SignOff
from ..report.evaluate import Measured
from ..report.stats import Interval
from .card import ModelCard
from .protocol import Protocol, differing
from .ranks import Standing
from .reading import Submission

#: By task: accuracy and calibration.
NAMES = {"single": ("accuracy", "ece"), "multi": ("map", "label_ece")}


@dataclass(frozen=True)
class Contender:
    """A row: one model of one submission, or a published method. `key` is distinct and names its page."""

    key: str
    card: ModelCard
    submission: Submission | None = None
    source: str = ""  # of a published row: where its numbers stand
    checked: SignOff | None = None  # by whoever runs the board


@dataclass(frozen=True)
class Value:
    """What one model has in one column. `cell` is None for published numbers."""

    accuracy: Interval | None
    calibration: Interval | None
    cell: Measured | None = None
    ranks: tuple[Standing | None, Standing | None] = (None, None)


@dataclass(frozen=True)
class Column:
    """The numbers of one protocol. `title`: its attack, as short as it is distinct in its table."""

    protocol: Protocol
    kind: str
    title: str
    values: Mapping[str, Value]
    metas: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Board:
    """One table. `rows` are keys of contenders, the best of the leading column first."""

    dataset: str
    threat: str
    task: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]

    @property
    def shared(self) -> dict[str, str]:
        """What all columns have in common."""
        other = set(differing([column.protocol for column in self.columns]))
        return {name: text for name, text in self.columns[0].protocol.items() if name not in other}


@dataclass
class Place:
    """A column while it is filled. `spec`: of its attack."""

    protocol: dict[str, str]
    kind: str
    spec: str
    values: dict[str, Value] = field(default_factory=dict)
    metas: list[Cell] = field(default_factory=list)


#: The columns of a table while they are filled, by all fields of their protocols.
Table = dict[tuple[tuple[str, str], ...], Place]
