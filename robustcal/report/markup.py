"""A table as Markdown or LaTeX. Nothing in a name can become markup, but mathematics in a label that people gave."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from .naming import MATHS, is_maths
from .tables import Column, Entry, Table, heading, interval, letter, number, spans

# -- Markdown ------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: the best in bold, with a dagger if significantly so, the second underlined."""

    def show(entry: Entry, column: Column) -> str:
        if entry.value is None or entry.empty:
            return ""
        body = number(entry.value, column, entry.signed)
        body = body.replace("<", "&lt;")
        body = f"**{body}**" if entry.best else f"<u>{body}</u>" if entry.rank == "second" else body
        body += "†" if entry.significant else ""
        bounds = interval(entry, column)
        flags = f"<sup>{table.mark(entry)}</sup>" if entry.flags else ""
        return body + flags + (f" <sub>{bounds}</sub>" if bounds else "")

    titles = [" ".join(filter(None, [_md(c.group), _md(heading(c))])) for c in table.columns]
    lines = [_md(table.caption), "", "| " + " | ".join([*map(_md, table.labels), *titles]) + " |"]
    lines.append("|" + " --- |" * len(table.labels) + " ---: |" * len(table.columns))
    for row in table.rows:
        cells = [*map(_md, row.labels), *(show(e, c) for e, c in zip(row.entries, table.columns, strict=True))]
        lines.append("| " + " | ".join(cells) + " |")
    if table.flags:
        lines.append("")
    for i, (flag, meaning) in enumerate(table.flags.items()):
        lines.append(f"<sup>{letter(i)}</sup> `{_md(flag)}`: {_md(meaning)}  ")
    lines += ["", *(f"- {_md(remark)}" for remark in table.remarks)] if table.remarks else []
    return "\n".join(lines) + "\n"


_MD = str.maketrans({**{c: "\\" + c for c in "\\`*_[]|~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def _md(text: str) -> str:
    return " ".join(text.split()).translate(_MD)


# -- LaTeX ---------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "ℓ": r"$\ell$",
    "∞": r"$\infty$", "×": r"$\times$", "−": r"$-$", "–": "--", "±": r"$\pm$", "→": r"$\to$", "≤": r"$\le$",
    "τ": r"$\tau$", "₂": "$_2$", "₀": "$_0$", "α": r"$\alpha$", "Δ": r"$\Delta$", "†": r"\dag{}",
    "…": r"\dots{}", "’": "'", "“": "``", "”": "''",
}  # fmt: skip


#: Norms, as they are typeset.
_NORMS = {"ℓ∞": r"$\ell_\infty$", "ℓ2": r"$\ell_2$", "ℓ1": r"$\ell_1$", "ℓ0": r"$\ell_0$"}


def escape_tex(text: str) -> str:
    """Text that LaTeX prints as it stands: letters of any script are kept, signs without a shape become their code points."""
    parts = re.split("(ℓ[∞0-2])", " ".join(text.split()))
    return "".join(_NORMS.get(part) or "".join(map(_escaped, part)) for part in parts)


def _escaped(sign: str) -> str:
    printed = 32 <= ord(sign) < 127 or unicodedata.category(sign)[0] in "LMN"
    return _TEX.get(sign) or (sign if printed else f"[U+{ord(sign):04X}]")


def label_tex(label: str) -> str:
    """A label that people gave: its mathematics as they stand, if they only print, everything else escaped."""
    parts = [f"${part}$" if at % 2 else part for at, part in enumerate(MATHS.split(label))]
    return "".join(part if at % 2 and is_maths(part[1:-1]) else escape(part) for at, part in enumerate(parts))


def escape(text: str) -> str:
    """`escape_tex`, the spaces at both ends kept."""
    inner = text.strip()
    before, _, after = text.partition(inner) if inner else (" " * bool(text), "", "")
    return " " * bool(before) + escape_tex(inner) + " " * bool(after)


def latex(table: Table, tex: Mapping[str, str] | None = None) -> str:
    """A `table*` with booktabs rules: ``\\usepackage{booktabs,graphicx}``.

    Args:
        tex: label -> what people wrote for it, mathematics included.
    """
    given = tex or {}

    def name(label: str) -> str:
        return label_tex(given[label]) if label in given else escape_tex(label)

    def show(entry: Entry, column: Column) -> str:
        if entry.value is None or entry.empty:
            return ""
        body = number(entry.value, column, entry.signed)
        body = f"${body}$" if body[0] in "+-<" else body
        body = rf"\textbf{{{body}}}" if entry.best else rf"\underline{{{body}}}" if entry.rank == "second" else body
        body += r"\textsuperscript{\dag}" if entry.significant else ""
        flags = rf"\textsuperscript{{{table.mark(entry)}}}" if entry.flags else ""
        bounds = interval(entry, column).replace("-", "$-$").replace("±", r"$\pm$")
        return body + flags + (rf" {{\scriptsize {bounds}}}" if bounds else "")

    count = len(table.labels)
    out = [r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape_tex(table.caption)}}}\smallskip"]
    out += [rf"\label{{tab:{''.join(c for c in table.name if c.isalnum() or c == '-')}}}"]
    out += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    out += [rf"\begin{{tabular}}{{@{{}}{'l' * count}{'r' * len(table.columns)}@{{}}}}", r"\toprule"]
    groups = spans([c.group for c in table.columns])
    if any(group for group, _, _ in groups):
        parts = [rf"\multicolumn{{{last - first}}}{{c}}{{{name(group)}}}" for group, first, last in groups]
        rules = [rf"\cmidrule(lr){{{first + 1 + count}-{last + count}}}" for group, first, last in groups if group]
        out += [" & " * count + " & ".join(parts) + r" \\", "".join(rules)]
    titles = [f"{name(c.title)} {escape_tex(c.arrow)}".strip() for c in table.columns]
    out += [" & ".join([*map(escape_tex, table.labels), *titles]) + r" \\"]
    out += [r"\midrule"]
    for i, row in enumerate(table.rows):
        if row.rule and i:
            out.append(r"\midrule")
        # The first label heads its block and is not repeated below it.
        repeated = count > 1 and i > 0 and not row.rule and row.labels[0] == table.rows[i - 1].labels[0]
        labels = ["" if repeated and at == 0 else name(label) for at, label in enumerate(row.labels)]
        cells = [*labels, *(show(e, c) for e, c in zip(row.entries, table.columns, strict=True))]
        out.append(" & ".join(cells) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}}"]
    notes = [
        rf"\textsuperscript{{{letter(i)}}}\,{escape_tex(flag)}: {escape_tex(meaning)}"
        for i, (flag, meaning) in enumerate(table.flags.items())
    ]
    notes += [escape_tex(remark) for remark in table.remarks]
    if notes:
        out += [r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize", r"\quad ".join(notes), r"\end{minipage}"]
    return "\n".join([*out, r"\end{table*}"]) + "\n"
