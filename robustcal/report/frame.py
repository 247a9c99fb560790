"""The single door from stored records to pandas frames and to cells.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..records.store import Run, write_atomically
from ..types import radius_text
from .asked import column_names
from .evaluate import PASSES, SCALAR_COLUMNS, Results, evaluate
from .labels import short_labels
from .merge import AXES, merge
from .naming import kept_labels, labelled
from .stats import Replicates

NOTHING = Replicates({}, {}, {})
#: The metrics that cells.csv carries, in its order; each with ``_lo`` and ``_hi``.
CSV_METRICS = ("accuracy", "ece", "confidence", "entropy", "nll", "brier", "au", "eu")


def cells_frame(source: Results | Iterable[Run]) -> pd.DataFrame:
    """One row per cell: cell, model, dataset, attack, norm, eps, radius, n, bins, metrics with ``_lo`` and ``_hi``,
    those that were asked for besides, forwards, backwards, flags, specs.

    `model`, `dataset` and `attack` are the shortest labels that tell the cells apart; ``*_spec`` are the whole specs.
    `eps` is the radius over 255 as text, `radius` the same as a number in [0, 1].
    `bins` is what calibration numbers are over that name no number themselves; `forwards` and `backwards` are the passes
    spent on all samples. Values are fractions and nats, never percentages. Ordered by model, dataset, attack and radius.
    """
    results = source if isinstance(source, Results) else evaluate(source)
    rows, asked = [], column_names(results, CSV_METRICS)
    for cell in results.cells:
        row: dict[str, Any] = {
            "cell": cell.id, **dict(zip(AXES, results.labelled(cell))),
            "norm": cell.meta.threat.norm, "eps": cell.eps,
            "radius": cell.meta.threat.eps, "n": cell.n, "bins": results.bins,
        }  # fmt: skip
        for name in CSV_METRICS:
            row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), cell.interval(name)))
        for (spec, name), title in asked.items():
            found = cell.asked[spec].interval(name) if name in cell.asked.get(spec, NOTHING).values else (None,) * 3
            row |= dict(zip((title, f"{title}_lo", f"{title}_hi"), found))
        row |= {name: cell.passes.get(name) for name in PASSES}
        row["flags"] = ";".join(cell.flags)
        rows.append(row | {f"{axis}_spec": getattr(cell, axis) for axis in AXES})
    names = ["cell", "model", "dataset", "attack", "norm", "eps", "radius", "n", "bins"]
    names += [name + end for name in CSV_METRICS for end in ("", "_lo", "_hi")]
    names += [title + end for title in asked.values() for end in ("", "_lo", "_hi")]
    names += [*PASSES, "flags", *(f"{axis}_spec" for axis in AXES)]
    return pd.DataFrame(rows, columns=names)


def samples_frame(runs: Iterable[Run], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per sample and cell: cell, model, dataset, attack, eps, radius and the record's own columns (no logits)."""
    runs = list(runs)
    sources, _ = merge(runs)
    given = kept_labels(runs)
    labels = {axis: labelled(short_labels(s.names[axis] for s in sources), given.get(axis, {}))[0] for axis in AXES}
    frames = []
    for source in sources:
        records = source.run.read(source.cell.id, columns or SCALAR_COLUMNS)
        frame = pd.DataFrame(dict(records))
        places = {"cell": source.cell.id, **{axis: labels[axis][source.names[axis]] for axis in AXES}}
        places["eps"] = radius_text(source.cell.eps)
        for at, (name, value) in enumerate(places.items()):
            frame.insert(at, name, value)
        frame.insert(len(places), "radius", source.cell.threat.eps)
        frames.append(frame)
    joined = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    names = [name for name in ("cell", "model", "dataset", "attack", "eps") if name in joined]
    return joined.astype(dict.fromkeys(names, "category"))


def csv_text(source: Results | Iterable[Run]) -> str:
    """The frame of the cells as CSV. The bytes depend on the records only: no times, no paths, eight digits."""
    return cells_frame(source).to_csv(index=False, float_format="%.8g", lineterminator="\n")


def write_cells_csv(run: Run, results: Results | None = None) -> Path:
    """Write ``RUN/cells.csv`` atomically and return its path."""
    path = run.path / "cells.csv"
    write_atomically(path, csv_text(results or evaluate([run])).encode())
    return path
