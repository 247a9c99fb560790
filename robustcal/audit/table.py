"""A table of cells held against the records it was made from: every number computed again, interval included."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from ..records.store import Run
from ..report.frame import CSV_METRICS, csv_text
from ..types import UserError

#: Columns that are compared. `cells.csv` has eight digits.
COMPARED = ("radius", "n", *(name + end for name in CSV_METRICS for end in ("", "_lo", "_hi")), "forwards", "backwards")
RELATIVE, ABSOLUTE = 1e-6, 1e-9


def unlike_rows(run: Run, path: Path) -> list[str]:
    """A line for every row of a table that is not what the records give, or of which the run has no cell.

    Raises:
        UserError: the file cannot be read, or is no table of cells.
    """
    try:
        given = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"table '{path}' cannot be read: {str(error).splitlines()[0]}") from None
    if "cell" not in given or not set(given) & set(COMPARED) or given["cell"].duplicated().any():
        raise UserError(f"table '{path}' is no cells.csv: it has no ids of cells, some twice, or no number of one")
    known = pd.read_csv(io.StringIO(csv_text([run]))).set_index("cell")
    return [line for _, row in given.iterrows() for line in _unlike(row, known, path.name)]


def _unlike(row: pd.Series, known: pd.DataFrame, name: str) -> list[str]:
    if row["cell"] not in known.index:
        return [f"{name}: the run has no cell {str(row['cell'])[:40]}"]
    own = known.loc[row["cell"]]
    both = [column for column in COMPARED if column in row.index and column in own.index]
    unlike = [column for column in both if not _same(row[column], own[column])]
    wrong = [f"{column} {str(row[column])[:20]} for {own[column]:.8g}" for column in unlike]
    title = f"{own['model']} x {own['dataset']} x {own['attack']} {own['eps']}"
    return [f"{name}: {title}, cell {row['cell']}: {', '.join(wrong[:3])}"] if wrong else []


def _same(one: object, other: float) -> bool:
    try:
        return bool(np.isclose(float(str(one)), float(other), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
    except ValueError:
        return False
