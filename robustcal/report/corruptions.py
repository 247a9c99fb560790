"""The layout `corruptions`: mean accuracy, error relative to a baseline and calibration under the common corruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import parse_spec
from .again import members, usable
from .averages import block
from .evaluate import Measured, Results
from .labels import sentence
from .parts import column, finish
from .replicates import Replicates
from .stats import average, flags_of
from .tables import Column, Row, Table

#: Corruptions that the paper has beside its fifteen, and in no mean.
NOT_COUNTED = ("speckle-noise", "gaussian-blur", "spatter", "saturate")
COUNTED, SEVERITIES = 15, 5
#: Columns: group, metric, title; of clean images, of the mean over corruptions, and of one corruption.
CLEAN = (("clean", "accuracy", "Acc"), ("clean", "ece", "ECE"))
MEAN = (
    ("corrupted", "accuracy", "mCA"), ("corrupted", "corruption_error", "mCE"),
    ("corrupted", "relative_corruption_error", "relative mCE"), ("corrupted", "ece", "mean ECE"),
)  # fmt: skip
EACH = (
    ("", "accuracy", "Acc"), ("", "corruption_error", "CE"), ("", "relative_corruption_error", "relative CE"), ("", "ece", "ECE"),
)  # fmt: skip


@dataclass(frozen=True)
class Corrupted:
    """The numbers of a model on one data set: clean, and corruption -> severity -> under it."""

    clean: Replicates
    under: Mapping[str, Mapping[int, Replicates]]


def corruption_tables(results: Results) -> list[Table]:
    """Means over the corruptions on every data set and on average; and each corruption by itself, on average.

    The mean corruption error is that of Hendrycks and Dietterich (2019, section 4.1): for each corruption the error summed
    over severities, divided by the same of the baseline; relative, both less the clean error. The baseline is the model of
    ``--versus``, else the first of the run. Mean corruption accuracy (mCA) is RobustBench's (Croce et al. 2021).
    """
    cells = [cell for cell in results.cells if cell.kind == "shift" and usable(cell.meta) and _corruption(cell.attack)]
    models, sets = list(dict.fromkeys(cell.model for cell in cells)), list(dict.fromkeys(cell.dataset for cell in cells))
    held = {dataset: own for dataset in sets if (own := _on(results, cells, models, dataset))}
    if not held:
        return []
    baseline = results.versus or models[0]
    found: dict[tuple[str, str, str], Replicates] = {}  # (data set, model, corruption, or "clean" or "mean")
    for dataset, by_model in held.items():
        base = by_model.get(baseline)
        for model, one in by_model.items():
            found |= {(dataset, model, "clean"): one.clean, (dataset, model, "mean"): mean_over(one, base, list(one.under))}
            found |= {(dataset, model, name): mean_over(one, base, [name]) for name in one.under}
    for model, name in dict.fromkeys(key[1:] for key in found):
        parts = [found[dataset, model, name] for dataset in held if (dataset, model, name) in found]
        found |= {("Average", model, name): average(parts)} if len(parts) == len(held) else {}

    def rows(label: str, dataset: str, *groups: tuple[str, Sequence[tuple[str, str, str]]]) -> list[Row]:
        def pick(name: str) -> Callable[[str], Replicates | None]:
            return lambda model: found.get((dataset, model, name))

        return block(results, models, (label,), [(metric, pick(name)) for name, columns in groups for _, metric, _ in columns])

    shown = [(results.labels["dataset"][name], name) for name in held] + ([("Average", "Average")] if len(held) > 1 else [])
    means = [row for label, name in shown for row in rows(label, name, ("clean", CLEAN), ("mean", MEAN))]
    names = [name for name in next(iter(next(iter(held.values())).values())).under if ("Average", models[0], name) in found]
    each = [row for name in names for row in rows(name, "Average", (name, EACH))]
    told = _relative(results.labels["model"].get(baseline, baseline))
    whole = f"Common corruptions (in %): means over {_which(held)}. {told}"
    over = "" if len(held) == 1 else f", averages over {len(held)} data sets"
    single = f"Each common corruption (in %), mean over severities{over}. {told}"
    return [
        finish(results, "corruptions", whole, _columns(*CLEAN, *MEAN), means, cells, ("Data set", "Model")),
        finish(results, "corruptions-each", single, _columns(*EACH), each, cells, ("Corruption", "Model")),
    ]


def _corruption(attack: str) -> tuple[str, int] | None:
    """Name and severity of one of the counted corruptions; None of everything else."""
    spec = parse_spec(attack.split(" #")[0])
    if spec.name != "corruption" or spec.variant is None or spec.variant in NOT_COUNTED or "severity" not in spec.params:
        return None
    return spec.variant, int(str(spec.params["severity"]))


def _on(results: Results, cells: Sequence[Measured], models: Sequence[str], dataset: str) -> dict[str, Corrupted]:
    """Model -> its numbers under the corruptions that all models have on a data set; {} where one has no clean cell there."""
    clean = {cell.model: cell.numbers for cell in results.cells if cell.kind == "clean" and cell.dataset == dataset}
    found: dict[str, dict[str, dict[int, Replicates]]] = {model: {} for model in models}
    for attack, eps in members(results, ("shift",)):
        here = {c.model: c.numbers for c in cells if (c.dataset, c.attack, c.eps) == (dataset, attack, eps)}
        if here.keys() == found.keys() and (of := _corruption(attack)):
            for model, numbers in here.items():
                found[model].setdefault(of[0], {})[of[1]] = numbers
    whole = all(model in clean and under for model, under in found.items())
    return {model: Corrupted(clean[model], under) for model, under in found.items()} if whole else {}


def mean_over(own: Corrupted, baseline: Corrupted | None, names: Sequence[str]) -> Replicates:
    """Accuracy, ECE and, where there is a baseline, both corruption errors: means over these corruptions, draw by draw.

    Without a relative error where the baseline's accuracy does not fall under one of them, and without its limits where that is
    so in more than 2.5 % of the draws.
    """

    def means(of: Callable[[Replicates, str], Any]) -> dict[str, np.ndarray]:
        def by_name(part: Corrupted, metric: str) -> np.ndarray:
            levels = [[of(numbers, metric) for numbers in part.under[name].values()] for name in names]
            return np.stack([np.mean(values, axis=0) for values in levels])

        right = by_name(own, "accuracy")
        made = {"accuracy": right.mean(0), "ece": by_name(own, "ece").mean(0)}
        if baseline is not None:
            others = by_name(baseline, "accuracy")
            rise, of_others = of(own.clean, "accuracy") - right, of(baseline.clean, "accuracy") - others
            with np.errstate(divide="ignore", invalid="ignore"):
                made["corruption_error"] = ((1 - right) / (1 - others)).mean(0)
                made["relative_corruption_error"] = (rise / np.where(of_others > 0, of_others, np.nan)).mean(0)
        return made

    values = {name: float(x) for name, x in means(lambda n, metric: np.float64(n.values[metric])).items() if np.isfinite(x)}
    draws = means(lambda n, metric: n.draws[metric])
    seen = means(lambda n, metric: n.draws[metric] - n.unseen.get(metric, 0.0))
    parts = [numbers for name in names for numbers in own.under[name].values()]
    unseen = {name: draws[name] - seen[name] for name in values}
    known = {name: np.isfinite(draws[name]).mean() >= 0.975 for name in values}
    kept = {name: draws[name] if known[name] else np.full_like(draws[name], np.nan) for name in values}
    return Replicates(values, kept, {}, samples=own.clean.samples, unseen=unseen, flags=flags_of(parts))


def _columns(*of: tuple[str, str, str]) -> list[Column]:
    return [column(metric, title, group, interval=True) for group, metric, title in of]


def _which(held: Mapping[str, Mapping[str, Corrupted]]) -> str:
    """Which corruptions and severities are averaged, and whether these are all of the paper's."""
    grids = [next(iter(of.values())).under for of in held.values()]
    if all(len(grid) == COUNTED and all(len(levels) == SEVERITIES for levels in grid.values()) for grid in grids):
        return f"the {COUNTED} corruptions of ImageNet-C at severities 1 to {SEVERITIES}"
    names = sentence(dict.fromkeys(name for grid in grids for name in grid))
    severities = sentence(str(level) for level in sorted({s for grid in grids for levels in grid.values() for s in levels}))
    return f"{names} at severities {severities} only: not the published means, which are of {COUNTED} at {SEVERITIES}"


def _relative(baseline: str) -> str:
    return (
        f"Corruption error (CE): error summed over severities, divided by that of {baseline}; relative: both less the clean"
        " error; mCE: mean over corruptions."
    )
