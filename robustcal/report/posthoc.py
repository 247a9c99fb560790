"""Post-hoc temperature as a control: fitted on clean or on attacked source records, and what survives attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .. import registry
from ..cell import Cell
from ..metrics.temperature import at_temperature, fit_temperature
from ..records.store import Run
from ..types import Records, UserError
from .evaluate import Results
from .labels import sentence, short_labels
from .merge import AXES, Source
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

    "native" is the model's own scale. "clean" and "attacked" are fitted to the model's records on its source dataset,
    without attack and under the attack of the row. "oracle" is fitted to the row's own samples, which no one could do:
    it bounds what any temperature repairs. On the source dataset itself a temperature is fitted to every other sample
    and judged on those between.

    Args:
        source: the source dataset of all models; by default, for each the one it was trained on.

    Columns: cell, model, dataset, attack, eps, source, fitted_on, temperature, n, and `VALUES` each with ``_lo`` and
    ``_hi``. Rows that would need a cell which the run lacks are left out.

    Raises:
        UserError: the run has no such dataset.
    """
    places = [Source(run, cell, {axis: getattr(cell, axis) for axis in AXES}) for cell in run.cells()]
    places = [place for place in places if _usable(place.cell)]
    datasets = list(dict.fromkeys(place.names["dataset"] for place in places))
    if source is not None and source not in datasets:
        raise UserError(f"the run has no single-label dataset '{source}'; it has: {', '.join(datasets) or 'none'}")
    sources = {place.names["model"]: [source] for place in places} if source else sources_of(places)[0]
    return _frame(places, sources, resamples)


COLUMN_NAMES = [
    "cell", "model", "dataset", "attack", "eps", "source", "fitted_on", "temperature", "n",
    *(name + end for name in VALUES for end in ("", "_lo", "_hi")),
]  # fmt: skip


def _usable(cell: Cell) -> bool:
    return cell.task == "single" and not cell.accuracy_only and cell.kind != "worst"


def _frame(places: Sequence[Source], sources: Mapping[str, Sequence[str]], resamples: int) -> pd.DataFrame:
    """The rows of all cells; `sources`: model -> datasets that are its source, the first for all that are not."""
    fitted = {place.key: place for place in places if place.names["dataset"] in sources.get(place.names["model"], ())}
    clean = {key[:2]: place for key, place in fitted.items() if place.cell.kind == "clean"}
    temperatures: dict[tuple[str, bool], float | None] = {}

    def fit(place: Source | None, half: bool) -> float | None:
        if place is None:
            return None
        if (place.cell.id, half) not in temperatures:
            records = place.run.read(place.cell.id, COLUMNS)
            temperatures[place.cell.id, half] = _fitted(_every_other(records, 0) if half else records)
        return temperatures[place.cell.id, half]

    rows = []
    for place in places:
        model, dataset, attack, eps = place.key
        known = sources.get(model, ())
        half = dataset in known
        source = dataset if half else next(iter(known), "")
        records = place.run.read(place.cell.id, COLUMNS)
        target = _every_other(records, 1) if half else records
        shared = Resamples.of(target["id"], resamples)
        found = {
            "native": 1.0, "clean": fit(clean.get((model, source)), half),
            "attacked": fit(fitted.get((model, source, attack, eps)), half), "oracle": _fitted(target),
        }  # fmt: skip
        if place.cell.kind == "clean":
            del found["attacked"]
        names = {"cell": place.cell.id, "model": model, "dataset": dataset, "attack": attack, "eps": eps}
        names |= {"source": source or None}
        for name, temperature in found.items():
            if temperature is not None:
                rows.append({**names, "fitted_on": name, **_judge(target, temperature, shared)})
    return pd.DataFrame(rows, columns=COLUMN_NAMES)


def _fitted(records: Records) -> float | None:
    """None where there is nothing to fit to, such as every other sample of one."""
    return fit_temperature(records) if len(records["id"]) else None


def _judge(target: Records, temperature: float, resamples: Resamples) -> dict[str, Any]:
    unknown = dict.fromkeys(VALUES, (float("nan"),) * 3)
    found = summarise(at_temperature(target, temperature), METRICS, resamples) if resamples.n else unknown
    row: dict[str, Any] = {"temperature": temperature, "n": resamples.n}
    for name in VALUES:
        row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), found[name]))
    return row


def _every_other(records: Records, first: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(column)[first::2] for name, column in records.items()}


# -- what a model was trained on ---------------------------------------------------------------------------------
def sources_of(places: Sequence[Source]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Model -> the datasets it was measured on that are the one it was trained on; and model -> why there is none.

    Splits, sizes and resolutions of one dataset are that dataset; the one nearest to what the training says comes first.
    """
    found, missing = {}, {}
    for model, cell in {place.names["model"]: place.cell for place in places}.items():
        stated = stated_source(cell)
        datasets = list(dict.fromkeys(place.names["dataset"] for place in places if place.names["model"] == model))
        same = [(-_agreement(dataset, stated), dataset) for dataset in datasets if stated and _same_set(dataset, stated)]
        if same:
            found[model] = [dataset for _, dataset in sorted(same, key=lambda pair: pair[0])]
        elif stated:
            missing[model] = f"its source {short_labels([stated])[stated]} is not in the run"
        else:
            missing[model] = "its source is not known"
    return found, missing


def stated_source(cell: Cell) -> str | None:
    """The spec of the dataset that a cell's model was trained on: what the cell records, else what a bundled card says."""
    spec = registry.parse_spec(cell.model)
    card = registry.models.cards().get(spec.name, {}) if spec.variant is None else {}
    return (cell.training or {}).get("source_data") or card.get("source_data") or None


def _same_set(dataset: str, stated: str) -> bool:
    one, other = (registry.parse_spec(text.split(" #")[0]) for text in (dataset, stated))
    return (one.name, one.variant) == (other.name, other.variant)


def _agreement(dataset: str, stated: str) -> int:
    one, other = (registry.parse_spec(text.split(" #")[0]).params for text in (dataset, stated))
    return sum(one.get(key) == value for key, value in other.items())


# -- the layout --------------------------------------------------------------------------------------------------
FITTED = {"native": "native", "clean": "clean-fitted", "attacked": "attack-fitted", "oracle": "oracle"}


def temperature_tables(results: Results) -> list[Table]:
    """The layout `temperature`: ECE of every cell at the native scale and at three fitted temperatures."""
    columns = tuple(Column(f"ECE {title}", "", True, "lower", True) for title in FITTED.values())
    places = [
        Source(cell.run, cell.meta, {axis: getattr(cell, axis) for axis in AXES}) for cell in results.cells if _usable(cell.meta)
    ]
    sources, missing = sources_of(places)
    rows: list[Row] = []
    labels = results.labels
    blocks: dict[tuple[str, str], dict[tuple[str, str], dict[str, Entry]]] = {}
    for row in _frame(places, sources, 1000).to_dict("records"):
        block = blocks.setdefault((row["attack"], row["eps"]), {})
        block.setdefault((row["model"], row["dataset"]), {})[row["fitted_on"]] = Entry(row["ece"], row["ece_lo"], row["ece_hi"])
    for (attack, eps), block in blocks.items():
        for number, ((model, dataset), found) in enumerate(block.items()):
            names = (labels["attack"][attack], eps, labels["model"][model], labels["dataset"][dataset])
            entries = tuple(found.get(name, Entry()) for name in FITTED)
            rows.append(Row(names, entries, rule=number == 0 and bool(rows)))
    caption = _caption(results, sources, missing)
    return [Table("temperature", caption, ("Attack", "Radius", "Model", "Data set"), columns, tuple(rows))]


def _caption(results: Results, sources: Mapping[str, Sequence[str]], missing: Mapping[str, str]) -> str:
    models, datasets = results.labels["model"], results.labels["dataset"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for model, found in sources.items():
        groups.setdefault(tuple(datasets[name] for name in found), []).append(models[model])
    here = sentence(names[0] + (f" ({sentence(of)})" if len(groups) > 1 else "") for names, of in groups.items())
    text = (
        "Expected calibration error (in %) of a post-hoc temperature: none, fitted to clean and to attacked records of the"
        f" data set that a model was trained on{f', here {here}' if here else ''}; and fitted to the row's own samples (an"
        " oracle that bounds what any temperature repairs)."
    )
    if groups:
        own = sentence(dict.fromkeys(name for names in groups for name in names))
        text += f" On {own} itself it is fitted to every other sample and judged on those between."
    if missing:
        text += f" Empty: {'; '.join(f'{models[model]}, {why}' for model, why in missing.items())}."
    return f"{text} [95 % interval]"
