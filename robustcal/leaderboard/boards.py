"""Tables of a leaderboard: one for each data set and threat model, a column for each protocol, a row for each model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cell import Cell
from ..metrics.bins import ReliabilityBins
from ..metrics.calibration import bins_of
from ..metrics.concerns import is_valid
from ..records.signoff import SignOff
from ..report.evaluate import Measured, evaluate
from ..report.labels import short_labels
from ..types import Records
from .nouns import NAMES, Board, Column, Contender, Place, Table, Value
from .protocol import UNATTACKED, dataset_of, protocol_of, threat_of, truth_of
from .published import Printed, put
from .ranks import standings
from .reading import Submission


@dataclass(frozen=True)
class Seen:
    """What a board keeps of a cell's records: a hash of its labels and its reliability bins."""

    truth: str
    bins: ReliabilityBins


@dataclass(frozen=True)
class Entry:
    """A submission on the board: its rows, and every cell with its protocol."""

    contenders: tuple[Contender, ...]
    cells: tuple[tuple[Measured, dict[str, str]], ...]


def entry_of(submission: Submission, checked: SignOff | None = None, resamples: int = 1000) -> Entry:
    """The numbers of a submission, from its records alone, one row for each of its models."""
    head = submission.content.removeprefix("sha256:")[:12]
    rows = [Contender(f"{head}-{at}", card, submission, checked=checked) for at, card in enumerate(submission.card.models)]
    cells = [cell for cell in evaluate([submission.run], resamples=resamples, details=_seen).cells if cell.meta.task in NAMES]
    metas = {cell.id: cell.meta for cell in cells}
    over = [[metas[member] for member in cell.meta.members] or [cell.meta] for cell in cells]
    told = [protocol_of(cell, members, cell.details.truth) for cell, members in zip(cells, over)]
    return Entry(tuple(rows), tuple(zip(cells, told)))


def _seen(cell: Cell, records: Records, clean: Records | None) -> Seen:
    return Seen(truth_of(records), bins_of(records))


def boards_of(entries: Iterable[Entry], published: Iterable[Printed] = ()) -> list[Board]:
    """All tables, ordered by data set and radius.

    Args:
        entries: of the submissions.
        published: numbers that nobody can check.
    """
    tables: dict[tuple[str, str, str], Table] = {}  # data set, task, threat model -> its columns
    for entry in entries:
        keys = {contender.card.model: contender.key for contender in entry.contenders}
        for cell, protocol in entry.cells:
            table = tables.setdefault((dataset_of(cell.meta), cell.meta.task, threat_of(cell.meta)), {})
            place = table.setdefault(tuple(sorted(protocol.items())), Place(protocol, cell.kind, cell.attack))
            place.values[keys[cell.meta.model]] = _value(cell)
            place.metas.append(cell.meta)
    for number in published:
        put(number, tables)
    clean = {about[:2]: [*table.values()] for about, table in tables.items() if about[2] == "clean"}
    known = {about[:2] for about in tables if about[2] != "clean"}
    attacked = {about: [*table.values()] for about, table in tables.items() if about[2] != "clean"}
    alone: dict[tuple[str, str, str], list[Place]] = {(*about, "clean"): [] for about in clean if about not in known}
    boards = [_board(*about, [*clean.get(about[:2], []), *columns]) for about, columns in {**attacked, **alone}.items()]
    return sorted(boards, key=_order)


def _value(cell: Measured) -> Value:
    """Its two numbers, without one that means nothing under its attack."""
    held = [name in cell.numbers.values and is_valid(name, tuple(cell.flags)) for name in NAMES[cell.meta.task]]
    accuracy, calibration = (cell.interval(name) if there else None for name, there in zip(NAMES[cell.meta.task], held))
    return Value(accuracy, calibration, cell)


def _board(dataset: str, task: str, threat: str, found: list[Place]) -> Board:
    titles = short_labels(place.spec for place in found)
    columns = [_column(place, titles[place.spec], task) for place in sorted(found, key=_leading)]
    lead = next((column for column in columns if column.kind not in UNATTACKED), columns[0])
    keys = list(dict.fromkeys(key for column in [lead, *columns] for key in column.values))
    return Board(dataset, threat, task, tuple(columns), tuple(sorted(keys, key=lambda key: _worth(lead, columns, key))))


def _leading(place: Place) -> tuple[bool, bool, int, bool, float]:
    """Clean first; then attacks before controls, with the most models, worst cases first, the strongest."""
    means = [value.accuracy.value for value in place.values.values() if value.accuracy is not None]
    strength = float(np.mean(means)) if means else 2.0
    return (place.kind != "clean", place.kind == "control", -len(place.values), place.kind != "worst" or not means, strength)


def _worth(lead: Column, columns: Sequence[Column], key: str) -> tuple[float, ...]:
    """Where a row stands: by accuracy in the leading column, then in the others."""
    numbers = [column.values[key].accuracy if key in column.values else None for column in [lead, *columns]]
    return tuple(-number.value if number is not None else 2.0 for number in numbers)


def _column(place: Place, title: str, task: str) -> Column:
    numbers = {key: value.cell.numbers for key, value in place.values.items() if value.cell is not None}
    right = standings({key: x for key, x in numbers.items() if place.values[key].accuracy}, NAMES[task][0])
    honest = standings({key: x for key, x in numbers.items() if place.values[key].calibration}, NAMES[task][1])
    values = {key: replace(value, ranks=(right.get(key), honest.get(key))) for key, value in place.values.items()}
    return Column(place.protocol, place.kind, title, values, tuple(place.metas))


def _order(board: Board) -> tuple[bool, str, bool, str, float, str]:
    """Tables with records first; then by data set, norm and radius."""
    cells = [meta for column in board.columns if column.kind not in UNATTACKED for meta in column.metas]
    radius = max((cell.threat.eps for cell in cells), default=0.0)
    bare = not any(column.metas for column in board.columns)
    return (bare, board.dataset, not cells, cells[0].threat.norm if cells else "", radius, board.threat)
