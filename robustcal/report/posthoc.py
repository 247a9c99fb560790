"""Post-hoc temperature as a control: fitted on clean or on attacked source records, and what survives attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .. import registry
from ..metrics.temperature import at_temperature, fit_temperature
from ..store import Run
from ..types import Records, UserError
from .evaluate import Results
from .resample import Resamples
from .stats import summarise
from .tables import Column, Entry, Row, Table

#: What is measured at every temperature, and the columns of the records that all of it needs.
METRICS = ("accuracy", "calibration", "scores")
VALUES = ("ece", "ece_debiased", "gap", "nll", "brier", "accuracy")
COLUMNS = (
    "id", "label", "correct", "confidence", "label_probability", "entropy", "brier", "dirichlet_confidence",
    "top_logits", "top_classes", "rest_logit", "log_alpha0", "log_eu",
)  # fmt: skip


def posthoc_frame(run: Run, source: str | None = None, resamples: int = 1000) -> pd.DataFrame:
    """Calibration of every single-label cell of a run at four temperatures.

    "native" is the model's own scale. "clean" and "attacked" are fitted to the model's records on the dataset
    `source` (default: the run's first), without attack and under the attack of the row. "oracle" is fitted to the row's
    own samples, which no one could do: it bounds what any temperature repairs. On the source dataset itself a temperature
    is fitted to every other sample and judged on those between.

    Columns: model, dataset, attack, eps, fitted_on, temperature, n, and `VALUES` each with ``_lo`` and ``_hi``. Rows
    that would need a cell which the run lacks are left out.

    Raises:
        UserError: the run has no such dataset.
    """
    cells = [cell for cell in run.cells() if cell["task"] == "single" and not cell["attack_meta"]["accuracy_only"]]
    datasets = list(dict.fromkeys(cell["dataset"] for cell in cells))
    source = source or (datasets[0] if datasets else "")
    if source not in datasets:
        raise UserError(f"the run has no single-label dataset '{source}'; it has: {', '.join(datasets) or 'none'}")
    fitted = {_key(cell): cell for cell in cells if cell["dataset"] == source}
    clean = {cell["model"]: cell for cell in fitted.values() if cell["attack_meta"]["kind"] == "clean"}
    temperatures: dict[tuple[str, bool], float] = {}

    def fit(cell: Mapping[str, Any] | None, half: bool) -> float | None:
        if cell is None:
            return None
        if (cell["id"], half) not in temperatures:
            records = run.read(cell["id"], COLUMNS)
            temperatures[cell["id"], half] = fit_temperature(_every_other(records, 0) if half else records)
        return temperatures[cell["id"], half]

    rows = []
    for cell in cells:
        half = cell["dataset"] == source
        records = run.read(cell["id"], COLUMNS)
        target = _every_other(records, 1) if half else records
        shared = Resamples.of(target["id"], resamples)
        found = {
            "native": 1.0, "clean": fit(clean.get(cell["model"]), half),
            "attacked": fit(fitted.get(_key(cell)), half), "oracle": fit_temperature(target),
        }  # fmt: skip
        if cell["attack_meta"]["kind"] == "clean":
            del found["attacked"]
        for name, temperature in found.items():
            if temperature is not None:
                rows.append({**_names(cell), "fitted_on": name, **_judge(target, temperature, shared)})
    return pd.DataFrame(rows, columns=COLUMN_NAMES)


COLUMN_NAMES = [
    "model", "dataset", "attack", "eps", "fitted_on", "temperature", "n",
    *(name + end for name in VALUES for end in ("", "_lo", "_hi")),
]  # fmt: skip


def _judge(target: Records, temperature: float, resamples: Resamples) -> dict[str, Any]:
    found = summarise(at_temperature(target, temperature), METRICS, resamples)
    row: dict[str, Any] = {"temperature": temperature, "n": resamples.n}
    for name in VALUES:
        row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), found[name]))
    return row


def _names(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell[name] for name in ("model", "dataset", "attack", "eps")}


def _key(cell: Mapping[str, Any]) -> tuple:
    """What a source cell must share with the cell it is applied to: all but the dataset."""
    return cell["model"], cell["attack"], str(cell["eps"])


def _every_other(records: Records, first: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(column)[first::2] for name, column in records.items()}


def temperature_tables(results: Results) -> list[Table]:
    """The layout `temperature`: ECE of every cell at the native scale and at three fitted temperatures.

    The source is the data set that the models' cards name as their `source_data`, else the run's first.
    """
    columns = tuple(Column(f"ECE {title}", "", True, "lower", True) for title in FITTED.values())
    tables = []
    for run in results.runs:
        source = source_of(run)
        frame = posthoc_frame(run, source)
        rows = []
        for (attack, eps), part in frame.groupby(["attack", "eps"], sort=False):
            for number, ((model, dataset), cell) in enumerate(part.groupby(["model", "dataset"], sort=False)):
                found = {row.fitted_on: Entry(row.ece, row.ece_lo, row.ece_hi) for row in cell.itertuples()}
                names = (_short(attack), eps, _short(model), _short(dataset))
                entries = tuple(found.get(name, Entry()) for name in FITTED)
                rows.append(Row(names, entries, rule=number == 0 and bool(rows)))
        caption = (
            "Expected calibration error (in %) of a post-hoc temperature: none, fitted to clean and to attacked records of"
            f" {_short(source)}, and fitted to the row's own samples (an oracle that bounds what any temperature repairs)."
            f" On {_short(source)} itself it is fitted to every other sample and judged on those between. [95 % interval]"
        )
        tables.append(Table("temperature", caption, ("Attack", "Radius", "Model", "Data set"), columns, tuple(rows)))
    return tables


FITTED = {"native": "native", "clean": "clean-fitted", "attacked": "attack-fitted", "oracle": "oracle"}


def source_of(run: Run) -> str | None:
    """The data set of a run that its models were trained on, by their cards; None if no card says."""
    cards = registry.models.cards()
    cells = run.cells()
    named = {str(cards.get(_short(cell["model"]), {}).get("source_data", "")) for cell in cells}
    sources = {registry.parse_spec(text).name for text in named if text}
    return next((cell["dataset"] for cell in cells if _short(cell["dataset"]) in sources), None)


def _short(spec: str | None) -> str:
    return registry.parse_spec(spec).name if spec else "the first data set"
