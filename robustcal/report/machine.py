"""A report for programs: cells, tables and everything that names them as one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .evaluate import Results
from .frame import cells_frame
from .tables import Entry, Table


def json_text(results: Results, tables: Sequence[Table] = ()) -> str:
    """Keys: runs, versions, bins, labels (axis -> whole spec -> label), notes, cells and tables.

    `cells` has one object per row of cells.csv, with the same names; `tables` has a list of rows each, whose entries stand
    in the order of its columns. Values are fractions and nats; what is not known is null.
    """
    cells = [{name: _known(value) for name, value in row.items()} for row in cells_frame(results).to_dict("records")]
    whole = {
        "runs": [run.path.resolve().name for run in results.runs],
        "versions": results.runs[0].header.get("versions", {}) if results.runs else {},
        "bins": results.bins,
        "labels": results.labels,
        "notes": results.notes,
        "cells": [{**row, "flags": row["flags"].split(";") if row["flags"] else []} for row in cells],
        "tables": [_table(table) for table in tables],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    columns = [
        {"title": c.title, "group": c.group, "metric": c.metric, "better": c.better, "unit": "fraction" if c.percent else ""}
        for c in table.columns
    ]
    named = [dict(zip(table.labels, row.labels, strict=True)) for row in table.rows]
    rows = [{"labels": names, "entries": [*map(_entry, row.entries)]} for names, row in zip(named, table.rows, strict=True)]
    about = {"name": table.name, "caption": table.caption, "columns": columns, "rows": rows}
    return about | {"flags": table.flags, "remarks": list(table.remarks)}


def _entry(entry: Entry) -> dict[str, Any]:
    numbers = {key: getattr(entry, key) for key in ("value", "lo", "hi", "deviation")}
    found = {key: _known(number) for key, number in numbers.items() if _known(number) is not None}
    marks = {"rank": entry.rank, "flags": list(entry.flags)}
    return {"value": None, **found, **{key: mark for key, mark in marks.items() if mark}}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
