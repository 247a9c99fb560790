"""Post-hoc calibrators as a control: fitted on clean or on attacked source records, and what survives attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .. import registry
from ..cell import Cell
from ..metrics.calibrators import CALIBRATORS, SAME_CLASSES, Fitted
from ..records.store import Run
from ..types import Records, UserError
from .again import half, source_of, usable
from .evaluate import Results
from .labels import sentence, short_labels
from .merge import AXES, Source
from .noted import same_set
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
    """Calibration of every single-label cell of a run under each of `calibrators.CALIBRATORS`, fitted in several ways.

    `fitted_on` "native" is the model's own softmax. "clean" and "attacked" are fitted to the model's records on its source
    dataset, without attack and under the attack of the row. "oracle" is a temperature fitted to the row's own samples, which
    no one could do: it bounds what any temperature repairs. On the source dataset itself they are fitted to a random half of
    the samples and judged on the other. Vector scaling is there only where the classes are those of the source.

    Args:
        source: the source dataset of all models; by default, for each the one it was trained on.

    Columns: cell, model, dataset, attack, eps, source, calibrator, fitted_on, temperature (nan for others), n, and `VALUES`
    each with ``_lo`` and ``_hi``. Rows that would need a cell which the run lacks are left out.

    Raises:
        UserError: the run has no such dataset.
    """
    places = [Source(run, cell, {axis: getattr(cell, axis) for axis in AXES}) for cell in run.cells()]
    places = [place for place in places if usable(place.cell)]
    datasets = list(dict.fromkeys(place.names["dataset"] for place in places))
    if source is not None and source not in datasets:
        raise UserError(f"the run has no single-label dataset '{source}'; it has: {', '.join(datasets) or 'none'}")
    sources = {place.names["model"]: [source] for place in places} if source else sources_of(places)[0]
    return _frame(places, sources, resamples)


COLUMN_NAMES = [
    "cell", "model", "dataset", "attack", "eps", "source", "calibrator", "fitted_on", "temperature", "n",
    *(name + end for name in VALUES for end in ("", "_lo", "_hi")),
]  # fmt: skip
NATIVE, NONE = "native", "none"


class _Fits:
    """Calibrators fitted to cells of source datasets, each once."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bool, str], Fitted | None] = {}

    def get(self, name: str, place: Source | None, part: bool) -> Fitted | None:
        """The calibrator of this name; None without a cell, samples or what else it needs.

        Args:
            part: fit to the first half of the samples only.
        """
        if place is None:
            return None
        key = place.cell.id, part, name
        if key not in self.kept:
            records = place.run.read(place.cell.id, COLUMNS)
            self.kept[key] = _fitted(name, half(records, False) if part else records)
        return self.kept[key]


def _fitted(name: str, records: Records) -> Fitted | None:
    """None where there is nothing to fit to, such as half of one sample, or where not every logit is stored."""
    try:
        return CALIBRATORS[name](records) if len(records["id"]) else None
    except UserError:
        return None


def _frame(places: Sequence[Source], sources: Mapping[str, Sequence[str]], resamples: int) -> pd.DataFrame:
    """The rows of all cells; `sources`: model -> datasets that are its source, the first for all that are not."""
    at_source = {place.key: place for place in places if place.names["dataset"] in sources.get(place.names["model"], ())}
    clean = {key[:2]: place for key, place in at_source.items() if place.cell.kind == "clean"}
    fits, rows = _Fits(), list[dict[str, Any]]()
    for place in places:
        model, dataset, attack, eps = place.key
        known = sources.get(model, ())
        part = dataset in known
        source = dataset if part else next(iter(known), "")
        records = place.run.read(place.cell.id, COLUMNS)
        target = half(records, True) if part else records
        shared = Resamples.of(target["id"], resamples)
        fitted_to = {"clean": clean.get((model, source))}
        if place.cell.kind != "clean":
            fitted_to["attacked"] = at_source.get((model, source, attack, eps))
        found: dict[tuple[str, str], Fitted | None] = {(NONE, NATIVE): Fitted(lambda same: same, 1.0)}
        for name in CALIBRATORS:
            for how, where in fitted_to.items():
                fits_classes = name not in SAME_CLASSES or (where is not None and where.cell.classnames == place.cell.classnames)
                found[name, how] = fits.get(name, where, part) if fits_classes else None
        found["temperature", "oracle"] = _fitted("temperature", target)
        names: dict[str, str | None] = {"cell": place.cell.id, "model": model, "dataset": dataset, "attack": attack, "eps": eps}
        names["source"] = source or None
        for (name, how), fitted in found.items():
            if fitted is not None:
                rows.append({**names, "calibrator": name, "fitted_on": how, **_judge(target, fitted, shared)})
    return pd.DataFrame(rows, columns=COLUMN_NAMES)


def _judge(target: Records, fitted: Fitted, resamples: Resamples) -> dict[str, Any]:
    unknown = dict.fromkeys(VALUES, (float("nan"),) * 3)
    found = summarise(fitted.apply(target), METRICS, resamples) if resamples.n else unknown
    row: dict[str, Any] = {"temperature": fitted.temperature, "n": resamples.n}
    for name in VALUES:
        row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), found[name]))
    return row


# -- what a model was trained on ---------------------------------------------------------------------------------
def sources_of(places: Sequence[Source]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Model -> the datasets it was measured on that are the one it was trained on; and model -> why there is none.

    Splits, sizes and resolutions of one dataset are that dataset; the one nearest to what the training says comes first.
    """
    found, missing = {}, {}
    for model, cell in {place.names["model"]: place.cell for place in places}.items():
        stated = stated_source(cell)
        datasets = list(dict.fromkeys(place.names["dataset"] for place in places if place.names["model"] == model))
        same = [(-_agreement(dataset, stated), dataset) for dataset in datasets if stated and same_set(dataset, stated)]
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


def _agreement(dataset: str, stated: str) -> int:
    one, other = (registry.parse_spec(text.split(" #")[0]).params for text in (dataset, stated))
    return sum(one.get(key) == value for key, value in other.items())


# -- the layout --------------------------------------------------------------------------------------------------------
#: (calibrator, fitted on) -> the group and the title of its column.
SHOWN = {
    (NONE, NATIVE): ("", "native"),
    **{(name, how): (f"fitted to {how} records", name) for how in ("clean", "attacked") for name in CALIBRATORS},
    ("temperature", "oracle"): ("oracle", "temperature"),
}  # fmt: skip


def calibrator_tables(results: Results) -> list[Table]:
    """The layout `calibrators`: ECE of every cell as it is and under calibrators fitted to clean and to attacked records."""
    columns = tuple(Column(title, group, True, "lower", True, metric="ece") for group, title in SHOWN.values())
    places = [source_of(cell) for cell in results.cells if usable(cell.meta)]
    sources, missing = sources_of(places)
    rows: list[Row] = []
    labels = results.labels
    blocks: dict[tuple[str, str], dict[tuple[str, str], dict[tuple[str, str], Entry]]] = {}
    for row in _frame(places, sources, 1000).to_dict("records"):
        block = blocks.setdefault((row["attack"], row["eps"]), {})
        entry = Entry(row["ece"], row["ece_lo"], row["ece_hi"])
        block.setdefault((row["model"], row["dataset"]), {})[row["calibrator"], row["fitted_on"]] = entry
    for (attack, eps), block in blocks.items():
        for number, ((model, dataset), found) in enumerate(block.items()):
            names = (labels["attack"][attack], eps, labels["model"][model], labels["dataset"][dataset])
            entries = tuple(found.get(key, Entry()) for key in SHOWN)
            rows.append(Row(names, entries, rule=number == 0 and bool(rows)))
    caption = _caption(results, sources, missing)
    return [Table("calibrators", caption, ("Attack", "Radius", "Model", "Data set"), columns, tuple(rows))]


def _caption(results: Results, sources: Mapping[str, Sequence[str]], missing: Mapping[str, str]) -> str:
    models, datasets = results.labels["model"], results.labels["dataset"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for model, found in sources.items():
        groups.setdefault(tuple(datasets[name] for name in found), []).append(models[model])
    here = sentence(names[0] + (f" ({sentence(of)})" if len(groups) > 1 else "") for names, of in groups.items())
    text = (
        "Expected calibration error (in %) of post-hoc calibrators: none; temperature, vector scaling, isotonic regression and"
        " histogram binning, fitted to clean and to attacked records of the data set that a model was trained on"
        f"{f', here {here}' if here else ''}; and a temperature fitted to the row's own samples (an oracle that bounds what any"
        " temperature repairs). Vector scaling stands only where the classes are those it was fitted to."
    )
    if groups:
        own = sentence(dict.fromkeys(name for names in groups for name in names))
        text += f" On {own} itself they are fitted to a random half of the samples and judged on the other."
    if missing:
        text += f" Empty: {'; '.join(f'{models[model]}, {why}' for model, why in missing.items())}."
    return f"{text} [95 % interval]"
