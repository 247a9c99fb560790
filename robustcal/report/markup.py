"""A table as Markdown or LaTeX. Nothing in a name can become markup."""

from __future__ import annotations

from .tables import Column, Entry, Table, heading, interval, letter, number, spans

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
    "∞": r"$\infty$", "×": r"$\times$", "−": r"$-$", "–": "--", "±": r"$\pm$", "→": r"$\to$", "≤": r"$\le$",
    "τ": r"$\tau$", "₂": "$_2$", "₀": "$_0$", "α": r"$\alpha$", "Δ": r"$\Delta$",
    "…": r"\dots{}", "’": "'", "“": "``", "”": "''",
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
        bounds = interval(entry, column).replace("-", "$-$").replace("±", r"$\pm$")
        return body + flags + (rf" {{\scriptsize {bounds}}}" if bounds else "")

    count = len(table.labels)
    out = [r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape_tex(table.caption)}}}\smallskip"]
    out += [rf"\label{{tab:{''.join(c for c in table.name if c.isalnum() or c == '-')}}}"]
    out += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    out += [rf"\begin{{tabular}}{{@{{}}{'l' * count}{'r' * len(table.columns)}@{{}}}}", r"\toprule"]
    groups = spans([c.group for c in table.columns])
    if any(group for group, _, _ in groups):
        parts = [rf"\multicolumn{{{last - first}}}{{c}}{{{escape_tex(group)}}}" for group, first, last in groups]
        rules = [rf"\cmidrule(lr){{{first + 1 + count}-{last + count}}}" for group, first, last in groups if group]
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
