"""One table as data, and the same table as plain text or CSV; see `markup` for Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from .labels import width_of

#: Plain-text alphabet of the marks that lead from a flagged number to its footnote.
MARKS = "abcdefghijklmnopqrstuvwxyz"


#: What a number is among those of its block. "significant": at the 5 % level; a best one than every other, a difference than 0.
RANKS = ("", "best", "best significant", "second", "significant")


@dataclass(frozen=True)
class Entry:
    """One number of a table. `value`, `lo`, `hi` are fractions or nats, never percentages; None is an empty place."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    flags: tuple[str, ...] = ()
    rank: str = ""  # of `RANKS`
    signed: bool = False  # a difference: always written with its sign
    deviation: float | None = None  # standard deviation over training seeds, printed behind ±

    @property
    def empty(self) -> bool:
        return self.value is None or math.isnan(self.value)

    @property
    def best(self) -> bool:
        return self.rank.startswith("best")

    @property
    def significant(self) -> bool:
        return self.rank.endswith("significant")


@dataclass(frozen=True)
class Column:
    """A column of numbers: title, the group it stands under, its unit and the direction that is better."""

    title: str
    group: str = ""
    percent: bool = True
    better: str = ""  # "higher", "lower" or "" where neither is better
    interval: bool = False  # print [lo, hi] beside the value
    digits: int = 2
    deviation: bool = False  # entries are means over training seeds
    metric: str = ""  # the number's name in cells.csv
    least: bool = False  # a p-value: what is smaller than its last decimal is written so

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


@dataclass(frozen=True)
class Row:
    """A row: its labels (one per label column) and one entry per number column. `rule` starts a new block."""

    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    rule: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption that states its own protocol; `short` says what is shown only. `remarks` stand below it."""

    name: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    flags: dict[str, str] = field(default_factory=dict)  # flag -> meaning, in the order of the footnotes
    short: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = {flag: "" for row in self.rows for entry in row.entries for flag in entry.flags}
        object.__setattr__(self, "flags", {flag: self.flags.get(flag, "") for flag in found})

    def mark(self, entry: Entry) -> str:
        """The footnote letters of an entry."""
        order = list(self.flags)
        return ",".join(letter(order.index(flag)) for flag in entry.flags)

    def numbers(self) -> dict[tuple[str, ...], dict[tuple[str, str], Entry]]:
        """Entries by row labels and (group, title), for code that looks a number up."""
        keys = [(column.group, column.title) for column in self.columns]
        return {row.labels: dict(zip(keys, row.entries, strict=True)) for row in self.rows}


def letter(index: int) -> str:
    """Footnote letter of a position: a ... z, then aa, ab ..."""
    return MARKS[index] if index < len(MARKS) else MARKS[index // len(MARKS) - 1] + MARKS[index % len(MARKS)]


def number(value: float, column: Column, signed: bool = False) -> str:
    """A number as it is printed: percent of a fraction, or as it stands; a fixed count of decimals, no minus zero."""
    if column.least and value < 10**-column.digits:
        return f"<{10**-column.digits:.{column.digits}f}"
    return f"{value * (100 if column.percent else 1):{'+' if signed else '-'}z.{column.digits}f}"


def interval(entry: Entry, column: Column) -> str:
    """The bounds of an entry as ``[lo, hi]``, its deviation as ``± sd``; empty where it has none or the column shows none."""
    if entry.deviation is not None:
        return f"± {number(entry.deviation, column)}"
    if not column.interval or entry.lo is None or entry.hi is None or math.isnan(entry.lo) or math.isnan(entry.hi):
        return ""
    return f"[{number(entry.lo, column)}, {number(entry.hi, column)}]"


def heading(column: Column) -> str:
    return f"{column.title} {column.arrow}".strip()


# -- plain text ----------------------------------------------------------------------------------------------------


def text(table: Table, width: int = 0) -> str:
    """Aligned plain text for a terminal: ``*`` best, ``*†`` significantly so, ``_`` second, ``^a`` a flag's footnote.

    `width` > 0 breaks a table that is wider into several below one another, the labels repeated; where the labels alone leave no
    room, the first of them stands above its rows.
    """
    marks = {"best": "* ", "best significant": "*†", "second": "_ ", "significant": "† ", "": "  "}

    def show(entry: Entry, column: Column) -> str:
        if entry.value is None or entry.empty:
            return "-  "
        flags = f"^{table.mark(entry)}" if entry.flags else ""
        body = " ".join(filter(None, [number(entry.value, column, entry.signed), interval(entry, column)]))
        return body + flags + marks[entry.rank]

    blocks = _blocks(table, show, width) if table.rows else []
    room = max(width, 40) if width > 0 else 100_000
    notes = [
        textwrap.fill(f"{flag}: {meaning}".rstrip(": "), room, initial_indent=f"  ^{letter(i)} ", subsequent_indent="     ")
        for i, (flag, meaning) in enumerate(table.flags.items())
    ]
    return "\n".join([table.caption, "", "\n\n".join(blocks), *notes, *table.remarks]).rstrip() + "\n"


def _blocks(table: Table, show: Callable[[Entry, Column], str], width: int) -> list[str]:
    parts = _split(table, show, width)
    if width > 0 and len(table.labels) > 1 and any(_too_wide(part, show, width) for part in parts):
        inside = [replace(row, labels=row.labels[1:], rule=False) for row in table.rows]
        found = []
        for name, rows in groupby(zip(table.rows, inside), key=lambda pair: pair[0].labels[0]):
            block = replace(table, labels=table.labels[1:], rows=tuple(row for _, row in rows))
            first, *others = _blocks(block, show, width)
            found += [f"{table.labels[0]} {name}\n{first}", *others]
        return found
    return [_grid(part, show) for part in parts]


def _too_wide(part: Table, show: Callable[[Entry, Column], str], width: int) -> bool:
    return any(width_of(line) > width for line in _grid(part, show).splitlines())


def _grid(table: Table, show: Callable[[Entry, Column], str]) -> str:
    labels, columns = len(table.labels), table.columns
    body = [[*row.labels, *(show(e, c) for e, c in zip(row.entries, columns))] for row in table.rows]
    head = [*table.labels, *(heading(c) + "  " for c in columns)]
    widths = [max(width_of(line[i]) for line in [head, *body]) for i in range(len(head))]
    groups = spans([c.group for c in columns])
    for group, first, last in groups:  # a heading is never cut: the last of its columns makes room
        space = sum(widths[labels + first : labels + last]) + 2 * (last - first - 1)
        widths[labels + last - 1] += max(width_of(f" {group} ") - space, 0) if group else 0
    lines = []
    if any(group for group, _, _ in groups):
        line = " " * (sum(widths[:labels]) + 2 * labels)
        for group, first, last in groups:
            space = sum(widths[labels + first : labels + last]) + 2 * (last - first - 1)
            line += centred(f" {group} ", space) + "  " if group else " " * (space + 2)
        lines.append(line.rstrip())
    for index, cells in enumerate([head, *body]):
        if index > 0 and (index == 1 or table.rows[index - 1].rule):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        gaps = [" " * (w - width_of(t)) for t, w in zip(cells, widths, strict=True)]
        parts = [t + gap if i < labels else gap + t for i, (t, gap) in enumerate(zip(cells, gaps, strict=True))]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def centred(text: str, width: int) -> str:
    """A text in the middle of a line of dashes."""
    gap = max(width - width_of(text), 0)
    return "-" * (gap // 2) + text + "-" * (gap - gap // 2)


def _split(table: Table, show: Callable[[Entry, Column], str], width: int) -> list[Table]:
    if width <= 0:
        return [table]
    fixed = sum(
        max(width_of(t) for t in [name, *(r.labels[i] for r in table.rows)]) + 2 for i, name in enumerate(table.labels)
    )
    parts: list[list[int]] = [[]]
    used = fixed
    for i, column in enumerate(table.columns):
        need = 2 + max(width_of(heading(column)) + 2, *(width_of(show(row.entries[i], column)) for row in table.rows))
        if not parts[-1] or table.columns[parts[-1][-1]].group != column.group:
            need = max(need, width_of(column.group) + 4)
        if parts[-1] and used + need > width:
            parts.append([])
            used = fixed
        parts[-1].append(i)
        used += need
    return [take_columns(table, part) for part in parts]


def take_columns(table: Table, indices: Sequence[int]) -> Table:
    """The same table with some of its columns."""
    rows = tuple(replace(row, entries=tuple(row.entries[i] for i in indices)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in indices), rows=rows)


def spans(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal neighbours: (group, first, one past the last)."""
    spans: list[tuple[str, int, int]] = []
    for i, group in enumerate(groups):
        if spans and spans[-1][0] == group:
            spans[-1] = (group, spans[-1][1], i + 1)
        else:
            spans.append((group, i, i + 1))
    return spans


# -- CSV -----------------------------------------------------------------------------------------------------------


def comma_separated(table: Table) -> str:
    """One line per row, full precision, fractions and nats as they are; bounds, and flags where there are any, in columns of
    their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [" ".join(filter(None, [c.group, c.title])) for c in table.columns]
    ends = [("", " lo", " hi") if c.interval else ("", " sd") if c.deviation else ("",) for c in table.columns]
    flagged = [any(row.entries[i].flags for row in table.rows) for i in range(len(names))]
    ends = [(*group, " flags") if some else group for group, some in zip(ends, flagged)]
    head = [[name + end for end in group] for name, group in zip(names, ends)]
    writer.writerow([*table.labels, *(name for group in head for name in group)])
    for row in table.rows:
        line: list[str] = list(row.labels)
        for entry, column, some in zip(row.entries, table.columns, flagged):
            values = (entry.value, *((entry.lo, entry.hi) if column.interval else (entry.deviation,) if column.deviation else ()))
            line += ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in values]
            line += [";".join(entry.flags)] if some else []
        writer.writerow(line)
    return out.getvalue()
