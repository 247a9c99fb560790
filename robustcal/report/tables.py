"""One table as data, and the same table as text, Markdown, LaTeX or CSV. Percent signs live here and nowhere else."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field, replace
from typing import Callable, Sequence

#: Plain-text alphabet of the marks that lead from a flagged number to its footnote.
MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Entry:
    """One number of a table. `value`, `lo`, `hi` are fractions or nats, never percentages; None is an empty place."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    flags: tuple[str, ...] = ()
    rank: str = ""  # "best" (and significantly so), "second" or ""
    signed: bool = False  # a difference: always written with its sign

    @property
    def empty(self) -> bool:
        return self.value is None or math.isnan(self.value)


@dataclass(frozen=True)
class Column:
    """A column of numbers: title, the group it stands under, its unit and the direction that is better."""

    title: str
    group: str = ""
    percent: bool = True
    better: str = ""  # "higher", "lower" or "" where neither is better
    interval: bool = False  # print [lo, hi] beside the value
    digits: int = 2

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
    """A table with a caption that states its own protocol."""

    name: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    flags: dict[str, str] = field(default_factory=dict)  # flag -> meaning, in the order of the footnotes

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
        return {row.labels: dict(zip(keys, row.entries)) for row in self.rows}


def letter(index: int) -> str:
    """Footnote letter of a position: a ... z, then aa, ab ..."""
    return MARKS[index] if index < len(MARKS) else MARKS[index // len(MARKS) - 1] + MARKS[index % len(MARKS)]


def number(value: float, column: Column, signed: bool = False) -> str:
    """A number as it is printed: percent of a fraction, or as it stands; a fixed count of decimals, no minus zero."""
    text = f"{value * (100 if column.percent else 1):{'+' if signed else ''}.{column.digits}f}"
    return text.replace("-", "") if float(text) == 0 and not signed else text.replace("-0.00", "+0.00")


def interval(entry: Entry, column: Column) -> str:
    """The bounds of an entry as ``[lo, hi]``, empty where there are none or the column shows none."""
    if not column.interval or entry.lo is None or entry.hi is None or math.isnan(entry.lo) or math.isnan(entry.hi):
        return ""
    return f"[{number(entry.lo, column)}, {number(entry.hi, column)}]"


def heading(column: Column) -> str:
    return f"{column.title} {column.arrow}".strip()


# -- plain text ----------------------------------------------------------------------------------------------------


def text(table: Table, width: int = 0) -> str:
    """Aligned plain text for a terminal: ``*`` best and significant, ``_`` second, ``^a`` a flag's footnote.

    `width` > 0 breaks a table that is wider into several below one another, the labels repeated.
    """
    marks = {"best": "*", "second": "_", "": " "}

    def show(entry: Entry, column: Column) -> str:
        if entry.empty:
            return "- "
        flags = f"^{table.mark(entry)}" if entry.flags else ""
        body = " ".join(filter(None, [number(entry.value, column, entry.signed), interval(entry, column)]))
        return body + flags + marks[entry.rank]

    blocks = [_grid(part, show) for part in _split(table, show, width)] if table.rows else ["(no cells)"]
    notes = [f"  ^{letter(i)} {flag}: {meaning}".rstrip(": ") for i, (flag, meaning) in enumerate(table.flags.items())]
    return "\n".join([table.caption, "", "\n\n".join(blocks), *notes]).rstrip() + "\n"


def _grid(table: Table, show: Callable[[Entry, Column], str]) -> str:
    labels, columns = len(table.labels), table.columns
    body = [[*row.labels, *(show(e, c) for e, c in zip(row.entries, columns))] for row in table.rows]
    head = [*table.labels, *(heading(c) + " " for c in columns)]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    groups = _spans([c.group for c in columns])
    lines = []
    if any(group for group, _, _ in groups):
        line = " " * (sum(widths[:labels]) + 2 * labels)
        for group, first, last in groups:
            space = sum(widths[labels + first : labels + last]) + 2 * (last - first - 1)
            line += f" {group} ".center(space, "-") + "  " if group else " " * (space + 2)
        lines.append(line.rstrip())
    for index, cells in enumerate([head, *body]):
        if index > 0 and (index == 1 or table.rows[index - 1].rule):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        parts = [t.ljust(w) if i < labels else t.rjust(w) for i, (t, w) in enumerate(zip(cells, widths))]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _split(table: Table, show: Callable[[Entry, Column], str], width: int) -> list[Table]:
    if width <= 0:
        return [table]
    fixed = sum(max(len(t) for t in [name, *(r.labels[i] for r in table.rows)]) + 2 for i, name in enumerate(table.labels))
    parts: list[list[int]] = [[]]
    used = fixed
    for i, column in enumerate(table.columns):
        need = 2 + max(len(heading(column)) + 1, *(len(show(row.entries[i], column)) for row in table.rows))
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


def _spans(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal neighbours: (group, first, one past the last)."""
    spans: list[tuple[str, int, int]] = []
    for i, group in enumerate(groups):
        if spans and spans[-1][0] == group:
            spans[-1] = (group, spans[-1][1], i + 1)
        else:
            spans.append((group, i, i + 1))
    return spans


# -- Markdown ------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: best and significant in bold, the second underlined."""

    def show(entry: Entry, column: Column) -> str:
        if entry.empty:
            return ""
        body = number(entry.value, column, entry.signed)
        body = {"best": f"**{body}**", "second": f"<u>{body}</u>", "": body}[entry.rank]
        bounds = interval(entry, column)
        flags = f"<sup>{table.mark(entry)}</sup>" if entry.flags else ""
        return body + flags + (f" <sub>{bounds}</sub>" if bounds else "")

    titles = [" ".join(filter(None, [_md(c.group), _md(heading(c))])) for c in table.columns]
    lines = [_md(table.caption), "", "| " + " | ".join([*map(_md, table.labels), *titles]) + " |"]
    lines.append("|" + " --- |" * len(table.labels) + " ---: |" * len(table.columns))
    for row in table.rows:
        cells = [*map(_md, row.labels), *(show(e, c) for e, c in zip(row.entries, table.columns))]
        lines.append("| " + " | ".join(cells) + " |")
    if table.flags:
        lines.append("")
    for i, (flag, meaning) in enumerate(table.flags.items()):
        lines.append(f"<sup>{letter(i)}</sup> `{_md(flag)}`: {_md(meaning)}  ")
    return "\n".join(lines) + "\n"


_MD = str.maketrans({**{c: "\\" + c for c in "\\`*_[]|~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def _md(text: str) -> str:
    return " ".join(text.split()).translate(_MD)


# -- LaTeX ---------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "ℓ": r"$\ell$",
    "∞": r"$\infty$", "×": r"$\times$", "−": r"$-$", "–": "--", "±": r"$\pm$", "→": r"$\to$", "≤": r"$\le$", "τ": r"$\tau$",
    "₂": "$_2$", "₀": "$_0$", "α": r"$\alpha$", "Δ": r"$\Delta$", "…": r"\dots{}", "’": "'", "“": "``", "”": "''",
}  # fmt: skip


def escape_tex(text: str) -> str:
    """Text that LaTeX prints as it stands; a character no plain engine knows becomes its code point."""
    return "".join(_TEX.get(c) or (c if 32 <= ord(c) < 127 else f"[U+{ord(c):04X}]") for c in " ".join(text.split()))


def latex(table: Table) -> str:
    """A `table*` with booktabs rules: ``\\usepackage{booktabs,graphicx}``."""

    def show(entry: Entry, column: Column) -> str:
        if entry.empty:
            return ""
        body = number(entry.value, column, entry.signed)
        body = f"${body}$" if body[0] in "+-" else body
        body = {"best": rf"\textbf{{{body}}}", "second": rf"\underline{{{body}}}", "": body}[entry.rank]
        flags = rf"\textsuperscript{{{table.mark(entry)}}}" if entry.flags else ""
        bounds = interval(entry, column).replace("-", "$-$")
        return body + flags + (rf" {{\scriptsize {bounds}}}" if bounds else "")

    count = len(table.labels)
    out = [r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape_tex(table.caption)}}}\smallskip"]
    out += [rf"\label{{tab:{''.join(c for c in table.name if c.isalnum() or c == '-')}}}"]
    out += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    out += [rf"\begin{{tabular}}{{@{{}}{'l' * count}{'r' * len(table.columns)}@{{}}}}", r"\toprule"]
    spans = _spans([c.group for c in table.columns])
    if any(group for group, _, _ in spans):
        parts = [rf"\multicolumn{{{last - first}}}{{c}}{{{escape_tex(group)}}}" for group, first, last in spans]
        rules = [rf"\cmidrule(lr){{{first + 1 + count}-{last + count}}}" for group, first, last in spans if group]
        out += [" & " * count + " & ".join(parts) + r" \\", "".join(rules)]
    out += [" & ".join([*map(escape_tex, table.labels), *(escape_tex(heading(c)) for c in table.columns)]) + r" \\"]
    out += [r"\midrule"]
    for i, row in enumerate(table.rows):
        if row.rule and i:
            out.append(r"\midrule")
        # The first label heads its block and is not repeated below it.
        repeated = count > 1 and i > 0 and not row.rule and row.labels[0] == table.rows[i - 1].labels[0]
        labels = ["" if repeated and at == 0 else escape_tex(label) for at, label in enumerate(row.labels)]
        cells = [*labels, *(show(e, c) for e, c in zip(row.entries, table.columns))]
        out.append(" & ".join(cells) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}}"]
    notes = [
        rf"\textsuperscript{{{letter(i)}}}\,{escape_tex(flag)}: {escape_tex(meaning)}"
        for i, (flag, meaning) in enumerate(table.flags.items())
    ]
    if notes:
        out += [r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize", r"\quad ".join(notes), r"\end{minipage}"]
    return "\n".join([*out, r"\end{table*}"]) + "\n"


# -- CSV -----------------------------------------------------------------------------------------------------------


def comma_separated(table: Table) -> str:
    """One line per row of the table, full precision, fractions and nats as they are; bounds in columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [" ".join(filter(None, [c.group, c.title])) for c in table.columns]
    head = [[name, f"{name} lo", f"{name} hi"] if c.interval else [name] for name, c in zip(names, table.columns)]
    writer.writerow([*table.labels, *(name for group in head for name in group)])
    for row in table.rows:
        line: list[str] = list(row.labels)
        for entry, column in zip(row.entries, table.columns):
            values = (entry.value, entry.lo, entry.hi) if column.interval else (entry.value,)
            line += ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in values]
        writer.writerow(line)
    return out.getvalue()
