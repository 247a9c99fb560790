"""The layouts of every report: accuracy, calibration and uncertainty by attack, radius and parameter; transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..registry import parse_spec
from .averages import SINGLE, Averages, Member, Pick, block, entry_of
from .axes import PARAMETERS, axis_rows, has_axis, varied
from .evaluate import Measured, Results
from .parts import at_radius, attacks_at, clean_attacks, column, finish, radii
from .ragged import missing, over
from .stats import Replicates
from .tables import Column, Row, Table
from .words import METRICS


def per_dataset(results: Results, metric: str, name: str) -> list[Table]:
    """Methods x datasets with the average (and H for accuracy and H): one table per radius, one block per attack."""
    averages = Averages(results)
    with_h, h = metric in ("accuracy", "h"), metric == "h"
    one: Callable[..., Replicates | Measured | None] = averages.harmonic_on if h else results.get
    mean: Callable[..., Replicates | None] = averages.mean_harmonic if h else averages.get
    tables, clean = [], clean_attacks(results)
    for eps in radii(results) or ["0"]:
        members = [*([] if h else clean), *((attack, eps) for attack in attacks_at(results, eps))]
        columns = [column(metric, results.labels["dataset"][d]) for d in averages.datasets] + [
            column(metric, "Average")
        ]
        columns += [column("h", "H")] if with_h else []
        rows, cells = list[Row](), list[Measured]()
        for attack, radius in members:
            at = {"attack": attack, "eps": radius}
            picks: list[tuple[str, Pick]] = [(metric, partial(one, dataset=d, **at)) for d in averages.datasets]
            picks += [(metric, partial(mean, **at))]
            if with_h:
                picks += [("h", partial(averages.harmonic, **at) if (attack, radius) not in clean else nothing)]
            label = results.labels["attack"][attack]
            rows += block(results, averages.models, (label,), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta.task == SINGLE]
        about = " Of clean and attacked accuracy on each data set; Average: their mean." if h else ""
        about += " H: harmonic mean of the clean and the attacked average." if with_h else ""
        if lacking := missing(results, averages, members):
            groups = {results.labels["attack"][a]: [(a, r), *([averages.clean_member] if with_h else [])] for a, r in members}
            lacking = f"Average: {over(averages, groups).removeprefix('averages ')}. {lacking}"
        what = f"{METRICS[metric].title} ({METRICS[metric].unit_words}) {at_radius(eps)}.{about}"
        tables.append(finish(results, f"{name}-{eps.replace('/', '-')}", what, columns, rows, cells, lacking=lacking))
    return tables


def main(results: Results) -> list[Table]:
    """Robust accuracy: methods x datasets, Average and H."""
    return per_dataset(results, "accuracy", "main")


def harmonic(results: Results) -> list[Table]:
    """H on every dataset, their mean, and the H of the averages."""
    return per_dataset(results, "h", "harmonic")


CALIBRATION = (
    "accuracy", "confidence", "ece", "ece_debiased", "adaptive_ece", "classwise_ece", "ks", "overconfidence",
    "underconfidence", "mean_gap", "brier", "nll", "aurc", "accuracy_at_80",
)  # fmt: skip
UNCERTAINTY = (
    "entropy", "entropy_shift", "au", "au_shift", "log10_eu", "log10_eu_shift", "confidence_shift", "entropy_falls",
    "auroc_entropy", "auroc_au", "auroc_eu",
)  # fmt: skip
WITH_INTERVAL = ("accuracy", "ece", "confidence", "entropy_shift", "au_shift", "log10_eu_shift", "confidence_shift")


def calibration(results: Results) -> list[Table]:
    """Averages of everything about calibration, how uncertainty moves under attack, and ECE per dataset."""
    what = "confidence is the softmax at the model's own logit scale"
    moved = "Δ is attacked minus clean; falls, the share of samples whose entropy falls"
    tables = _wide(results, "calibration", "Calibration", CALIBRATION, what)
    return (
        tables + _wide(results, "uncertainty", "Uncertainty", UNCERTAINTY, moved) + per_dataset(results, "ece", "ece")
    )


def _wide(results: Results, name: str, title: str, wanted: Sequence[str], what: str) -> list[Table]:
    """Averages over datasets of several metrics: one table per radius, one block per attack."""
    averages = Averages(results)
    known = {metric for cell in results.cells for metric in cell.numbers.values}
    names = [metric for metric in wanted if metric in known]
    columns = [column(metric, interval=metric in WITH_INTERVAL) for metric in names]
    tables = []
    for eps in radii(results) or ["0"]:
        members = [*clean_attacks(results), *((attack, eps) for attack in attacks_at(results, eps))]
        rows, cells = list[Row](), list[Measured]()
        for attack, radius in members:
            picks: list[tuple[str, Pick]] = [(metric, partial(averages.get, attack=attack, eps=radius)) for metric in names]
            rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta.task == SINGLE]
        groups = {results.labels["attack"][attack]: [(attack, radius)] for attack, radius in members}
        text = f"{title} {at_radius(eps)}, {over(averages, groups)}; {what}."
        lacking = missing(results, averages, members)
        tables.append(finish(results, f"{name}-{eps.replace('/', '-')}", text, columns, rows, cells, lacking=lacking))
    return tables


def ablation(results: Results) -> list[Table]:
    """One row per model: clean and attacked averages of accuracy and ECE, and H, side by side."""
    averages = Averages(results)
    tables = []
    for eps in radii(results) or ["0"]:
        members = [*clean_attacks(results), *((attack, eps) for attack in attacks_at(results, eps))]
        columns, picks = list[Column](), list[tuple[str, Pick]]()
        for attack, radius in members:
            at = {"attack": attack, "eps": radius}
            group = results.labels["attack"][attack]
            columns += [column("accuracy", "Acc", group), column("ece", "ECE", group)]
            picks += [(name, partial(averages.get, **at)) for name in ("accuracy", "ece")]
            if (attack, radius) not in clean_attacks(results):
                columns.append(column("h", "H", group))
                picks.append(("h", partial(averages.harmonic, **at)))
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if (c.attack, c.eps) in members and c.meta.task == SINGLE]
        groups = {results.labels["attack"][attack]: [(attack, radius)] for attack, radius in members}
        what = f"Accuracy, expected calibration error and H (all in %) {at_radius(eps)}, {over(averages, groups)}."
        lacking = missing(results, averages, members)
        tables.append(finish(results, f"ablation-{eps.replace('/', '-')}", what, columns, rows, cells, ("Model",), lacking))
    return tables


def by_eps(results: Results) -> list[Table]:
    """Accuracy and ECE against the radius: one block per attack."""
    averages = Averages(results)
    sizes = [eps for eps in radii(results) if any(c.eps == eps and c.kind != "clean" and not has_axis(c) for c in results.cells)]
    steps = [None, *sizes]  # None: without attack, which an attack at radius 0 is not
    columns = [column(m, eps or "clean", METRICS[m].title) for m in ("accuracy", "ece") for eps in steps]
    rows: list[Row] = []
    cells: list[Measured] = []
    groups: dict[str, list[Member]] = {}
    attacked = {c.attack for c in results.cells if c.kind != "clean" and not has_axis(c)}
    others = _by_parameters(results, averages)
    for attack in [a for a in results.values("attack") if a in attacked] or ([] if others else results.values("attack")[:1]):
        here = [averages.clean_member, *((attack, eps) for eps in steps if eps is not None)]
        groups[results.labels["attack"][attack]] = here
        sets = averages.sets(*here)
        picks: list[tuple[str, Pick]] = [
            (metric, partial(averages.get, attack=name, eps=eps, sets=sets))
            for metric in ("accuracy", "ece") for name, eps in here
        ]  # fmt: skip
        rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
        cells += [c for c in results.cells if c.attack == attack and c.meta.task == SINGLE]
    what = f"Accuracy and expected calibration error (in %) against the radius, {over(averages, groups)}."
    lacking = missing(results, averages, [member for members in groups.values() for member in members])
    return [*([finish(results, "by-eps", what, columns, rows, cells, lacking=lacking)] if rows or not others else []), *others]


def _by_parameters(results: Results, averages: Averages) -> list[Table]:
    """Accuracy and ECE against severity, steps, queries ... where cells differ in them: one block per attack and radius."""
    tables = []
    for name in PARAMETERS:
        if not (groups := varied(results, name)):
            continue
        values, rows, over_what = axis_rows(results, averages, groups, ("accuracy", "ece"), results.labels["attack"])
        titles = ["clean", *(f"{value:g}" for value in values)]
        columns = [column(metric, title, METRICS[metric].title) for metric in ("accuracy", "ece") for title in titles]
        here = {member for found in groups.values() for member in found.values()}
        cells = [c for c in results.cells if (c.attack, c.eps) in here and c.meta.task == SINGLE]
        what = f"Accuracy and expected calibration error (in %) against {name}, {over(averages, over_what)}."
        lacking = missing(results, averages, [member for held in over_what.values() for member in held])
        tables.append(finish(results, f"by-{name}", what, columns, rows, cells, lacking=lacking))
    return tables


def nothing(model: str) -> None:
    """The pick of a place that a block leaves empty."""


def transfer(results: Results) -> list[Table]:
    """Adversarial images made on one model and shown to another: rows attack, columns are attacked."""
    averages = Averages(results)
    tables = []
    for eps in radii(results):
        cells = [c for c in results.cells if c.eps == eps and c.kind == "transfer" and c.meta.task == SINGLE]
        cells = [c for c in cells if source_of(c.attack)]
        if not cells:
            continue
        columns = [column("accuracy", results.labels["model"][m], "target") for m in averages.models]
        groups = {results.labels["attack"][attack]: [(attack, eps)] for attack in dict.fromkeys(c.attack for c in cells)}
        rows = []
        for attack in dict.fromkeys(c.attack for c in cells):
            entries = [entry_of(averages.get(model, attack, eps), "accuracy") for model in averages.models]
            rows.append(Row((source_of(attack),), tuple(entries)))
        what = f"Accuracy (in %) of the target on images crafted on the source at radius {eps}, {over(averages, groups)}."
        tables.append(finish(results, f"transfer-{eps.replace('/', '-')}", what, columns, rows, cells, ("Source",)))
    return tables


def source_of(attack: str) -> str:
    """The model a transfer attack was crafted on, from its spec; "" where that is the model itself."""
    return str(parse_spec(attack.split(" #")[0]).params.get("from", ""))
