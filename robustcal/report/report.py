"""From run directories to the files of a report: tables, figures and the page. Neither model nor GPU is needed."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..records.store import Run, write_atomically
from ..types import UserError
from . import layouts, markup, tables
from .catalogue import BINS, metric_function
from .compare import compare_with, numbers_of
from .details import describe
from .evaluate import REPORT_METRICS, Results, evaluate
from .frame import csv_text
from .machine import json_text
from .tables import Table

#: Written without being asked for a layout: those that have cells.
DEFAULT_LAYOUTS = ("main", "calibration", "by-eps", "transfer", "coco", "metrics", "versus")
#: For the layout `calibration` when it is asked for: slower, so not in every report.
FULL_METRICS = (*REPORT_METRICS, "selective", "adaptive", "kolmogorov", "detection", "classwise")
#: How much a caption says: the whole protocol, or what is shown only.
CAPTIONS = ("full", "short")
LATEX_HEAD = "% Needs \\usepackage{booktabs,graphicx}. Made by robustcal; \\input this file.\n"


#: Layout -> its tables.
Shown = Mapping[str, Sequence[Table]]


def gather(
    runs: Iterable[str | Path | Run],
    *,
    metrics: Sequence[str] = REPORT_METRICS,
    details: bool = True,
    resamples: int = 1000,
    wanted: Sequence[str] = (),
    bins: int | None = None,
    rename: Sequence[str] = (),
    versus: str | None = None,
    title: str = "",
) -> Results:
    """Open run directories, merge them and compute every number once; what all the functions below start from.

    Args:
        metrics: what to compute; `FULL_METRICS` has everything the layout `calibration` can show.
        details: keep what diagrams and the page need.
        wanted: specs of further metrics, for the layout `metrics` and cells.csv.
        bins: of every calibration number and diagram (15).
        rename: ``OLD=NEW``, other labels for what a label or a whole spec names.
        versus: the model that the layout `versus` compares all others with.
        title: of the page.

    Raises:
        UserError: a path that is no run, or runs without a finished cell; names that the runs do not have.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    draw = partial(describe, bins=bins or BINS) if details else None
    results = evaluate(opened, metrics, details=draw, resamples=resamples, wanted=wanted, bins=bins)
    if not results.cells:
        names = ", ".join(f"'{run.path}'" for run in opened)
        raise UserError(f"{names} has no finished cell to report on; run the same bench command again")
    results.rename(rename)
    results.versus, results.title = None if versus is None else results.model(versus), title
    return results


def metrics_for(layout: str | None) -> tuple[str, ...]:
    """The metrics that a layout wants."""
    return FULL_METRICS if layout == "all" or (layout and "calibration" in layout_names(layout)) else REPORT_METRICS


def layout_names(layout: str | None) -> list[str]:
    """The layouts that a text names: several joined by commas, "all", or None for the default ones."""
    if layout is None:
        return list(DEFAULT_LAYOUTS)
    return list(layouts.LAYOUTS) if layout == "all" else [name.strip() for name in layout.split(",")]


def check_request(
    formats: Iterable[str] = (), layout: str | None = None, compare: str | None = None, wanted: Sequence[str] = (),
    out: str | Path | None = None, versus: str | None = None, caption: str = "full", bins: int | None = None,
) -> None:  # fmt: skip
    """Refuse a report that cannot be made, before anything is computed.

    Raises:
        UserError: unknown format, layout, comparison, caption or metric; a layout without a published table or without
            the option that it needs; fewer than one bin; an `out` that is a file or cannot be written, unless all that
            is asked for is text.
    """
    formats = list(formats)
    for name in formats:
        if name not in ("text", *WRITERS):
            raise UserError(f"unknown format '{name}'; there are: text, {', '.join(WRITERS)}")
    for name in layout_names(layout):
        layouts.check(name)
    if layout and "metrics" in layout_names(layout) and layout != "all" and not wanted:
        raise UserError("layout 'metrics' shows the metrics you name with --metrics SPEC; see: robustcal ls metrics")
    if layout and "versus" in layout_names(layout) and layout != "all" and versus is None:
        raise UserError("layout 'versus' compares all models with the one you name with --versus MODEL")
    if caption not in CAPTIONS:
        raise UserError(f"unknown caption '{caption}'; there are: {', '.join(CAPTIONS)}")
    if bins is not None and bins < 1:
        raise UserError(f"--bins {bins} is none; give 1 or more")
    for spec in wanted:
        metric_function(spec)
    if compare is not None:
        numbers_of(compare, layout_names(layout))
        if bins not in (None, BINS):
            raise UserError(f"--compare {compare} cannot be had with --bins {bins}: published errors are over {BINS} bins")
    writes = out and set(formats) != {"text"}
    above = next((path for path in [Path(out), *Path(out).parents] if path.exists()), None) if out and writes else None
    if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
        why = "not writable" if above.is_dir() else "a file"
        raise UserError(f"cannot write to '{out}': '{above}' is {why}; choose another --out")


def chosen_tables(
    results: Results, layout: str | None = None, compare: str | None = None, caption: str = "full"
) -> list[Table]:  # fmt: skip
    """The tables of `tables_by_layout`, one after the other."""
    return _flat(tables_by_layout(results, layout, compare, caption))


def tables_by_layout(
    results: Results, layout: str | None = None, compare: str | None = None, caption: str = "full"
) -> dict[str, list[Table]]:  # fmt: skip
    """The tables of a layout, of several (``main,calibration``), of "all", or by default; those that have rows.

    Args:
        compare: the name of published tables (`compare.comparisons`) that stand beside the measured numbers.
        caption: "full" or "short".

    Raises:
        UserError: nothing of the runs belongs into a layout that was named.
    """
    names = layout_names(layout)
    if compare is not None:
        return {"compare": compare_with(compare, results, names)}
    found = {name: [table for table in layouts.build(name, results) if table.rows] for name in names}
    for name, made in found.items():
        if not made and layout not in (None, "all"):
            raise UserError(f"layout '{name}' is empty: {layouts.why_empty(name)}")
    if caption == "full":
        return found
    return {name: [replace(table, caption=table.short or table.caption) for table in made] for name, made in found.items()}


def text_table(results: Results, width: int | None = None) -> str:
    """The summary that `bench` prints: accuracy and ECE against the radius (mAP for many labels), and what was noted."""
    tasks = {cell.meta.task for cell in results.cells}
    shown = [name for task, name in (("single", "by-eps"), ("multi", "coco"), ("ood", "ood")) if task in tasks]
    shown = [name if any(table.rows for table in layouts.build(name, results)) else "main" for name in shown]
    return text_report(results, layout=",".join(shown), width=width)


def text_report(
    runs: Results | Iterable[str | Path | Run],
    layout: str | None = "main",
    compare: str | None = None,
    width: int | None = None,
    caption: str = "full",
) -> str:
    """Tables as plain text, broken to fit `width` characters (by default the terminal's)."""
    results = runs if isinstance(runs, Results) else gather(runs, metrics=metrics_for(layout), details=False)
    width = shutil.get_terminal_size((120, 24)).columns if width is None else width
    parts = [tables.text(_wrapped(table, width), width) for table in chosen_tables(results, layout, compare, caption)]
    return "\n".join([*parts, *results.notes])


def _wrapped(table: Table, width: int) -> Table:
    remarks = tuple(textwrap.fill(remark, max(width, 40)) for remark in table.remarks)
    return replace(table, caption=textwrap.fill(table.caption, max(width, 40)), remarks=remarks)


def write_report(
    runs: Results | Sequence[str | Path | Run], formats: Iterable[str], out: str | Path, layout: str | None = None,
    compare: str | None = None, caption: str = "full",
) -> list[Path]:  # fmt: skip
    """Write a report and return the paths written, the page last.

    Args:
        runs: run directories, or what `gather` made of them.
        formats: of md, tex, csv, json, html, diagrams, figures, cells; see `WRITERS`.
        layout, compare, caption: as in `chosen_tables`; for md, tex, csv and json.

    Raises:
        UserError: unknown format, layout or comparison; a layout without cells; a path that cannot be written.
    """
    formats = set(formats) - {"text"}
    known = runs if isinstance(runs, Results) else None
    check_request(formats, layout, compare, _asked(runs), out, known.versus if known else None, caption)
    order = [name for name in WRITERS if name in formats]
    results = runs if isinstance(runs, Results) else gather(runs, metrics=metrics_for(layout))
    out, paths = Path(out), list[Path]()
    with_tables = {"md", "tex", "csv", "json"} & formats or ("html" in formats and (layout or compare))
    shown = tables_by_layout(results, layout, compare, caption) if with_tables else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in order:
            paths += WRITERS[name](results, out, shown)
    except OSError as error:
        raise UserError(f"cannot write to '{out}': {error.strerror or error}; choose another --out") from None
    return paths


def _asked(runs: Any) -> list[str]:
    return list(dict.fromkeys(spec for cell in runs.cells for spec in cell.asked)) if isinstance(runs, Results) else []


def _flat(shown: Shown) -> list[Table]:
    return [table for made in shown.values() for table in made]


def _write(path: Path, text: str) -> list[Path]:
    write_atomically(path, text.encode())
    return [path]


def _markdown(results: Results, out: Path, shown: Shown) -> list[Path]:
    parts = [f"## {table.name}\n\n{markup.markdown(table)}" for table in _flat(shown)]
    notes = [f"- {note}" for note in results.notes]
    return _write(out / "table.md", "\n".join([*parts, *notes]))


def _latex(results: Results, out: Path, shown: Shown) -> list[Path]:
    parts = [markup.latex(table, results.tex) for table in _flat(shown)]
    return _write(out / "table.tex", "\n".join([LATEX_HEAD, *parts]))


def _csv(results: Results, out: Path, shown: Shown) -> list[Path]:
    paths = _write(out / "cells.csv", csv_text(results))
    for table in _flat(shown):
        paths += _write(out / f"table-{table.name}.csv", tables.comma_separated(table))
    return paths


def _json(results: Results, out: Path, shown: Shown) -> list[Path]:
    return _write(out / "report.json", json_text(results, _flat(shown)))


def _diagrams(results: Results, out: Path, shown: Shown) -> list[Path]:
    from . import figures

    return figures.write_diagrams(results, out)


def _figures(results: Results, out: Path, shown: Shown) -> list[Path]:
    from . import figures

    return figures.write_diagrams(results, out, ("pdf",)) + figures.write_figures(results, out)


def _cells(results: Results, out: Path, shown: Shown) -> list[Path]:
    from . import figures

    return figures.write_cell_diagrams(results, out)


def _html(results: Results, out: Path, shown: Shown) -> list[Path]:
    from .images import images_beside
    from .site import page

    # The page names what lies beside it already; it is written last, so that it finds what this call wrote.
    known = [
        path
        for pattern in ("table.*", "cells.csv", "figures/*", "reliability/*")
        for path in sorted(out.glob(pattern))
    ]
    files = [(path.relative_to(out).as_posix(), path.relative_to(out).as_posix()) for path in known]
    if (out.parent / "cells.csv").exists():
        files.insert(0, ("../cells.csv", "cells.csv: every number with its interval"))
    return _write(out / "index.html", page(results, files, images_beside(out), shown))


#: Format -> what writes it, in the order of writing.
WRITERS: Mapping[str, Callable[[Results, Path, Shown], list[Path]]] = {
    "md": _markdown,  # table.md
    "tex": _latex,  # table.tex, booktabs
    "csv": _csv,  # cells.csv, and one file per table
    "json": _json,  # report.json: cells, tables, notes
    "diagrams": _diagrams,  # reliability/MODEL-ATTACK.png
    "figures": _figures,  # reliability/*.pdf and figures/*.{pdf,svg,png}
    "cells": _cells,  # reliability/CELL.png, one for every cell
    "html": _html,  # index.html
}
