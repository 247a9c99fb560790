"""The layout `seeds`: mean and standard deviation over models that differ in their training seed alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..metrics.concerns import concerning
from .averages import Averages
from .captions import protocol
from .evaluate import Measured, Results
from .labels import sentence
from .stats import Replicates, flags_of, seed_spread
from .tables import Column, Entry, Row, Table
from .words import METRICS, flag_meanings


@dataclass
class Group:
    """Models of one training: seed -> model. `facts`: what is known about it; `doubles`: a second model of a seed."""

    facts: dict[str, Any]
    seeds: dict[int, str] = field(default_factory=dict)
    doubles: list[str] = field(default_factory=list)

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Whether what both trainings state agrees: a bundled card states less than a run folder."""
        shared = facts.keys() & self.facts.keys() - {"seed"}
        return bool(shared) and all(facts[key] == self.facts[key] for key in shared)

    def add(self, model: str, facts: Mapping[str, Any]) -> None:
        self.facts |= facts
        if facts["seed"] in self.seeds:
            self.doubles.append(model)
        else:
            self.seeds[facts["seed"]] = model


def groups_of(results: Results) -> list[Group]:
    """The models of a report by training; those whose training is not known are left out.

    A model that states little joins the first group that it agrees with, after those that state everything.
    """
    known = {cell.model: cell.meta.training for cell in results.cells if cell.meta.training}
    groups: list[Group] = []
    for model, facts in sorted(known.items(), key=lambda item: -len(item[1])):
        group = next((group for group in groups if group.takes(facts)), None)
        if group is None:
            group = Group(dict(facts))
            groups.append(group)
        group.add(model, facts)
    order = results.values("model")
    return sorted(groups, key=lambda group: min(order.index(model) for model in group.seeds.values()))


def seed_tables(results: Results) -> list[Table]:
    """One table: attack and training down; accuracy and ECE against the radius across, each mean ± deviation over seeds."""
    averages, groups = Averages(results), groups_of(results)
    steps = [eps for eps in results.values("eps") if any(c.eps == eps and c.kind != "clean" for c in results.cells)]
    columns = [
        Column("clean" if eps == "0" else eps, METRICS[name].title, True, METRICS[name].better, False, 2, True)
        for name in ("accuracy", "ece") for eps in ("0", *steps)
    ]  # fmt: skip
    columns.append(Column("Seeds", "", False, "", False, 0))
    names, rows = labels(groups, results), []
    single = [cell for cell in results.cells if cell.meta.task == "single"]
    attacks = [a for a in results.values("attack") if any(c.attack == a and c.kind != "clean" for c in single)]
    for attack in attacks or [""]:
        for number, group in enumerate(groups):
            picks = [
                [averages.clean(m) if eps == "0" else averages.get(m, attack, eps) for m in group.seeds.values()]
                for eps in ("0", *steps)
            ]
            entries = [spread_of(found, name) for name in ("accuracy", "ece") for found in picks]
            label = results.labels["attack"][attack] if attack else "clean"
            rows.append(Row((label, names[number]), (*entries, Entry(len(group.seeds))), rule=number == 0))
    about, heads = caption(results, averages, groups, single), ("Attack", "Training")
    return [Table("seeds", about, heads, tuple(columns), tuple(rows), flag_meanings())]


def spread_of(found: Sequence[Replicates | None], name: str) -> Entry:
    """Mean and deviation over models; empty where one of them lacks the number."""
    values = [one.values[name] for one in found if one is not None and name in one.values]
    if not values or len(values) < len(found):
        return Entry()
    spread = seed_spread(values)
    flags = concerning(name, flags_of(one for one in found if one is not None))
    return Entry(spread.mean, flags=flags, deviation=None if math.isnan(spread.deviation) else spread.deviation)


def labels(groups: Sequence[Group], results: Results) -> list[str]:
    """A distinct name for each training: its method, or its model of the lowest seed where methods are shared."""
    methods = [str(group.facts.get("method", "")) for group in groups]
    models = [results.labels["model"][group.seeds[min(group.seeds)]] for group in groups]
    return [method if method and methods.count(method) == 1 else model for method, model in zip(methods, models)]


def caption(results: Results, averages: Averages, groups: Sequence[Group], cells: Sequence[Measured]) -> str:
    """What was averaged over, and the protocol."""
    if not groups or not cells:
        return "Spread over training seeds. No model of the run says how it was trained."
    seeds = sorted({seed for group in groups for seed in group.seeds})
    count = len(averages.datasets)
    trained = sentence(map(str, seeds))
    text = (
        f"Accuracy and expected calibration error (in %), mean ± standard deviation over models trained with seed {trained};"
        " without ± there is one. Models of a row differ in their training seed alone, the samples and the attack's noise are"
        f" the same for all. {f'Each value is an average over {count} data sets.' if count > 1 else 'One data set.'}"
    )
    doubles = [results.labels["model"][model] for group in groups for model in group.doubles]
    if doubles:
        text += f" Left out, a second model of a seed: {sentence(doubles)}."
    without = [m for m in averages.models if not any(m in (*g.seeds.values(), *g.doubles) for g in groups)]
    if without:
        text += f" Left out, no training known: {sentence(results.labels['model'][m] for m in without)}."
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    return f"{text} {protocol([cell.meta for cell in cells], versions)}"
