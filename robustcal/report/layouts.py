"""The tables a report is made of: which cells stand where, and what is averaged."""

from __future__ import annotations

from typing import Callable, Iterable, Mapping, Sequence

from ..metrics.accuracy import harmonic_mean
from ..registry import parse_spec
from ..types import UserError
from .captions import marks_note, protocol
from .frame import Cell, Results
from .labels import sentence
from .stats import Replicates, average, mark
from .tables import Column, Entry, Row, Table
from .words import METRICS, flag_meanings

SINGLE, MULTI = "single", "multi"


class Averages:
    """Averages over datasets, kept: (model, attack, eps) -> Replicates, or None where a dataset is missing."""

    def __init__(self, results: Results, task: str = SINGLE):
        self.results = results
        cells = [cell for cell in results.cells if cell.meta["task"] == task]
        self.datasets = list(dict.fromkeys(cell.dataset for cell in cells))
        self.models = list(dict.fromkeys(cell.model for cell in cells))
        self._kept: dict[tuple[str, str, str], Replicates | None] = {}

    def get(self, model: str, attack: str, eps: str) -> Replicates | None:
        key = (model, attack, eps)
        if key not in self._kept:
            cells = [self.results.get(model, dataset, attack, eps) for dataset in self.datasets]
            self._kept[key] = average([cell.numbers for cell in cells]) if cells and all(cells) else None
        return self._kept[key]

    def clean(self, model: str) -> Replicates | None:
        """The average over the clean images."""
        attack = next((cell.attack for cell in self.results.cells if cell.kind == "clean"), None)
        return self.get(model, attack, "0") if attack else None

    def harmonic(self, model: str, attack: str, eps: str) -> Replicates | None:
        """H of the clean and the attacked average accuracy, under the name "h"."""
        clean, robust = self.clean(model), self.get(model, attack, eps)
        if clean is None or robust is None or "accuracy" not in robust.values or "accuracy" not in clean.values:
            return None
        value = float(harmonic_mean(clean.values["accuracy"], robust.values["accuracy"]))
        draws = harmonic_mean(clean.draws["accuracy"], robust.draws["accuracy"])
        return Replicates({"h": value}, {"h": draws}, {})


Pick = Callable[[str], "Replicates | Cell | None"]


def fill(models: Sequence[str], columns: Sequence[tuple[str, Pick]]) -> dict[str, list[Entry]]:
    """Entries by model for one block of rows: per column a metric name and what yields its numbers; ranks filled in."""
    rows: dict[str, list[Entry]] = {model: [] for model in models}
    for name, pick in columns:
        found = {model: pick(model) for model in models}
        numbers = {m: x.numbers if isinstance(x, Cell) else x for m, x in found.items() if x is not None}
        numbers = {m: x for m, x in numbers.items() if name in x.values}
        ranks = ranked(numbers, name)
        for model in models:
            flags = tuple(found[model].flags) if isinstance(found[model], Cell) else ()
            limits = numbers[model].interval(name) if model in numbers else None
            rows[model].append(Entry(*limits, flags, ranks.get(model, "")) if limits else Entry())
    return rows


def ranked(numbers: Mapping[str, Replicates], name: str) -> dict[str, str]:
    """Model -> "best" (and significantly so) or "second"; nothing where the best value is shared by several."""
    if len(numbers) < 2 or METRICS[name].better == "none":
        return {}
    values = {model: round(x.values[name], 12) for model, x in numbers.items()}
    marks = mark(numbers, name, direction=METRICS[name].better)
    top = [values[model] for model, found in marks.items() if found.startswith("best")]
    second = [values[model] for model, found in marks.items() if found == "second"]
    if not top or top == second:
        return {}
    best = {model: "best" for model, found in marks.items() if found == "best"}
    return {model: "second" for model, value in values.items() if [value] == second} | best


def block(results: Results, models: Sequence[str], label: Sequence[str], columns) -> list[Row]:
    """Rows of one block; models without a single number are left out."""
    filled = fill(models, columns)
    rows = [(model, entries) for model, entries in filled.items() if not all(entry.empty for entry in entries)]
    names = results.labels["model"]
    return [Row((*label, names[model]), tuple(entries), rule=i == 0) for i, (model, entries) in enumerate(rows)]


def attacks_at(results: Results, eps: str) -> list[str]:
    """Attacks that ran at a radius, the worst case last."""
    here = {cell.attack for cell in results.cells if cell.eps == eps and cell.kind != "clean"}
    return [attack for attack in results.values("attack") if attack in here]


def radii(results: Results) -> list[str]:
    """Radii of attacked cells, ascending."""
    return [eps for eps in results.values("eps") if any(c.eps == eps and c.kind != "clean" for c in results.cells)]


def _clean_attacks(results: Results) -> list[tuple[str, str]]:
    return [(attack, "0") for attack in dict.fromkeys(c.attack for c in results.cells if c.kind == "clean")]


def _column(name: str, title: str | None = None, group: str = "", interval: bool = False) -> Column:
    word = METRICS[name]
    percent = word.unit == "fraction"
    return Column(title or word.short, group, percent, word.better, interval, 2 if percent else 3)


def _finish(results: Results, name: str, what: str, columns, rows, cells: Iterable[Cell], labels=("Attack", "Model")):
    metas = [cell.meta for cell in cells]
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    note = marks_note(any(column.interval for column in columns))
    caption = f"{what} {protocol(metas, versions)} {note}" if metas else f"{what} The run has no such cells."
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings())


def per_dataset(results: Results, metric: str, name: str) -> list[Table]:
    """Methods x datasets with the average (and H for accuracy): one table per radius, one block per attack."""
    averages = Averages(results)
    tables = []
    for eps in radii(results) or ["0"]:
        members = _clean_attacks(results) + [(attack, eps) for attack in attacks_at(results, eps) if eps != "0"]
        columns = [_column(metric, results.labels["dataset"][d]) for d in averages.datasets] + [_column(metric, "Average")]
        columns += [_column("h", "H")] if metric == "accuracy" else []
        rows, cells = [], []
        for attack, radius in members:
            picks = [(metric, lambda m, d=d: results.get(m, d, attack, radius)) for d in averages.datasets]
            picks += [(metric, lambda m: averages.get(m, attack, radius))]
            if metric == "accuracy":
                picks += [("h", lambda m: averages.harmonic(m, attack, radius) if radius != "0" else None)]
            label = results.labels["attack"][attack]
            rows += block(results, averages.models, (label,), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta["task"] == SINGLE]
        h = " H: harmonic mean of the clean and the attacked average." if metric == "accuracy" else ""
        what = f"{METRICS[metric].title} ({METRICS[metric].unit_words}) at radius {eps}.{h}"
        tables.append(_finish(results, f"{name}-{eps.replace('/', '-')}", what, columns, rows, cells))
    return tables


def main(results: Results) -> list[Table]:
    """Robust accuracy: methods x datasets, Average and H."""
    return per_dataset(results, "accuracy", "main")


CALIBRATION = (
    "accuracy", "confidence", "ece", "ece_debiased", "adaptive_ece", "classwise_ece", "ks", "overconfidence",
    "underconfidence", "brier", "nll", "aurc", "accuracy_at_80",
)  # fmt: skip
UNCERTAINTY = (
    "entropy", "entropy_shift", "au", "au_shift", "log10_eu", "log10_eu_shift", "confidence_shift", "entropy_falls",
    "auroc_entropy", "auroc_au", "auroc_eu",
)  # fmt: skip
WITH_INTERVAL = ("accuracy", "ece", "confidence", "entropy_shift", "au_shift", "log10_eu_shift", "confidence_shift")


def calibration(results: Results) -> list[Table]:
    """Averages of everything about calibration, how uncertainty moves under attack, and ECE per dataset."""
    what = "confidence is the softmax at the model's own logit scale"
    moved = "a shift is attacked minus clean, falls is the share of samples whose entropy falls, AUROC tells attacked from clean"
    tables = _wide(results, "calibration", "Calibration", CALIBRATION, what)
    return tables + _wide(results, "uncertainty", "Uncertainty", UNCERTAINTY, moved) + per_dataset(results, "ece", "ece")


def _wide(results: Results, name: str, title: str, wanted: Sequence[str], what: str) -> list[Table]:
    """Averages over datasets of several metrics: one table per radius, one block per attack."""
    averages = Averages(results)
    known = {metric for cell in results.cells for metric in cell.numbers.values}
    names = [metric for metric in wanted if metric in known]
    columns = [_column(metric, interval=metric in WITH_INTERVAL) for metric in names]
    tables = []
    for eps in radii(results) or ["0"]:
        members = _clean_attacks(results) + [(attack, eps) for attack in attacks_at(results, eps) if eps != "0"]
        rows, cells = [], []
        for attack, radius in members:
            picks = [(metric, lambda m: averages.get(m, attack, radius)) for metric in names]
            rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta["task"] == SINGLE]
        text = f"{title} at radius {eps}, {_over(averages)}; {what}."
        tables.append(_finish(results, f"{name}-{eps.replace('/', '-')}", text, columns, rows, cells))
    return tables


def ablation(results: Results) -> list[Table]:
    """One row per model: clean and attacked averages of accuracy and ECE, and H, side by side."""
    averages = Averages(results)
    tables = []
    for eps in radii(results) or ["0"]:
        members = _clean_attacks(results) + [(attack, eps) for attack in attacks_at(results, eps) if eps != "0"]
        columns, picks = [], []
        for attack, radius in members:
            group = results.labels["attack"][attack]
            columns += [_column("accuracy", "Acc", group), _column("ece", "ECE", group)]
            picks += [(name, lambda m, a=attack, r=radius: averages.get(m, a, r)) for name in ("accuracy", "ece")]
            if radius != "0":
                columns.append(_column("h", "H", group))
                picks.append(("h", lambda m, a=attack, r=radius: averages.harmonic(m, a, r)))
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if (c.attack, c.eps) in members and c.meta["task"] == SINGLE]
        what = f"Accuracy, expected calibration error and H (all in %) at radius {eps}, {_over(averages)}."
        tables.append(_finish(results, f"ablation-{eps.replace('/', '-')}", what, columns, rows, cells, ("Model",)))
    return tables


def by_eps(results: Results) -> list[Table]:
    """Accuracy and ECE against the radius: one block per attack."""
    averages, steps = Averages(results), radii(results)
    columns = [_column(m, "clean" if e == "0" else e, METRICS[m].title) for m in ("accuracy", "ece") for e in ["0", *steps]]
    rows, cells = [], []
    for attack in (a for a in results.values("attack") if any(c.attack == a and c.kind != "clean" for c in results.cells)):
        picks = [
            (metric, (lambda m: averages.clean(m)) if eps == "0" else (lambda m, e=eps: averages.get(m, attack, e)))
            for metric in ("accuracy", "ece") for eps in ["0", *steps]
        ]  # fmt: skip
        rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
        cells += [c for c in results.cells if c.attack == attack and c.meta["task"] == SINGLE]
    what = f"Accuracy and expected calibration error (in %) against the radius, {_over(averages)}."
    return [_finish(results, "by-eps", what, columns, rows, cells)]


def transfer(results: Results) -> list[Table]:
    """Adversarial images made on one model and shown to another: rows attack, columns are attacked."""
    averages = Averages(results)
    tables = []
    for eps in radii(results):
        cells = [c for c in results.cells if c.eps == eps and c.kind == "transfer" and c.meta["task"] == SINGLE]
        if not cells:
            continue
        columns = [_column("accuracy", results.labels["model"][m], "target") for m in averages.models]
        rows = []
        for attack in dict.fromkeys(c.attack for c in cells):
            entries = [averages.get(model, attack, eps) for model in averages.models]
            rows.append(Row((source_of(attack),), tuple(Entry(*e.interval("accuracy")) if e else Entry() for e in entries)))
        what = f"Accuracy (in %) of the target on images crafted on the source at radius {eps}, {_over(averages)}."
        tables.append(_finish(results, f"transfer-{eps.replace('/', '-')}", what, columns, rows, cells, ("Source",)))
    return tables or [_finish(results, "transfer", "Accuracy under transferred attacks.", [], [], [], ("Source",))]


def source_of(attack: str) -> str:
    """The model a transfer attack was crafted on, from its spec."""
    params = parse_spec(attack.split(" #")[0]).params
    return str(params.get("from", attack))


MULTILABEL = ("map", "precision_at_3", "recall_at_3", "f1_at_3")


def coco(results: Results) -> list[Table]:
    """Multi-label sets: mAP and precision, recall, F1 of the three highest scores, clean and attacked; H of the F1."""
    averages = Averages(results, MULTI)
    tables = []
    for attack in (a for a in results.values("attack") if any(c.attack == a and c.kind != "clean" for c in results.cells)):
        steps = [eps for eps in radii(results) if any(averages.get(m, attack, eps) for m in averages.models)]
        if not steps:
            continue
        columns = [_column(n, group="clean" if e == "0" else e) for e in ["0", *steps] for n in MULTILABEL]
        picks = [
            (name, (lambda m: averages.clean(m)) if eps == "0" else (lambda m, e=eps: averages.get(m, attack, e)))
            for eps in ["0", *steps] for name in MULTILABEL
        ]  # fmt: skip
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if c.attack == attack and c.meta["task"] == MULTI]
        what = f"Multi-label recognition (in %) under {results.labels['attack'][attack]} on {sentence(averages.datasets)}."
        tables.append(_finish(results, f"coco-{len(tables) + 1}", what, columns, rows, cells, ("Model",)))
    return tables or [_finish(results, "coco", "Multi-label recognition.", [], [], [], ("Model",))]


def _over(averages: Averages) -> str:
    count = len(averages.datasets)
    return f"averages over {count} data sets" if count > 1 else "one data set"


LAYOUTS: Mapping[str, Callable[[Results], list[Table]]] = {
    "main": main, "calibration": calibration, "ablation": ablation, "by-eps": by_eps, "transfer": transfer, "coco": coco,
}  # fmt: skip


def build(name: str, results: Results) -> list[Table]:
    """The tables of a layout.

    Raises:
        UserError: unknown layout.
    """
    if name not in LAYOUTS:
        raise UserError(f"unknown layout '{name}'; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name](results)
