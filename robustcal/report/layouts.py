"""The tables a report is made of: which cells stand where, and what is averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..registry import parse_spec
from ..types import UserError
from .asked import metric_tables
from .averages import MULTI, SINGLE, Averages, block
from .captions import marks_note, protocol
from .evaluate import Measured, Results
from .labels import sentence
from .posthoc import temperature_tables
from .seeds import seed_tables
from .tables import Column, Entry, Row, Table
from .words import METRICS, flag_meanings


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


def _finish(results: Results, name: str, what: str, columns, rows, cells: Iterable[Measured], labels=("Attack", "Model")):
    metas = [cell.meta for cell in cells]
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    note = marks_note(any(column.interval for column in columns))
    caption = f"{what} {protocol(metas, versions)} {note}" if metas else f"{what} The run has no such cells."
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings())


def per_dataset(results: Results, metric: str, name: str) -> list[Table]:
    """Methods x datasets with the average (and H for accuracy and H): one table per radius, one block per attack."""
    averages = Averages(results)
    with_h, h = metric in ("accuracy", "h"), metric == "h"
    one, mean = (averages.harmonic_on, averages.mean_harmonic) if h else (results.get, averages.get)
    tables = []
    for eps in radii(results) or ["0"]:
        members = [] if h else _clean_attacks(results)
        members += [(attack, eps) for attack in attacks_at(results, eps) if eps != "0"]
        columns = [_column(metric, results.labels["dataset"][d]) for d in averages.datasets] + [
            _column(metric, "Average")
        ]
        columns += [_column("h", "H")] if with_h else []
        rows, cells = [], []
        for attack, radius in members:
            picks = [(metric, lambda m, d=d: one(m, d, attack, radius)) for d in averages.datasets]
            picks += [(metric, lambda m: mean(m, attack, radius))]
            if with_h:
                picks += [("h", lambda m: averages.harmonic(m, attack, radius) if radius != "0" else None)]
            label = results.labels["attack"][attack]
            rows += block(results, averages.models, (label,), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta.task == SINGLE]
        about = " Of clean and attacked accuracy on each data set; Average: their mean." if h else ""
        about += " H: harmonic mean of the clean and the attacked average." if with_h else ""
        what = f"{METRICS[metric].title} ({METRICS[metric].unit_words}) at radius {eps}.{about}"
        tables.append(_finish(results, f"{name}-{eps.replace('/', '-')}", what, columns, rows, cells))
    return tables


def main(results: Results) -> list[Table]:
    """Robust accuracy: methods x datasets, Average and H."""
    return per_dataset(results, "accuracy", "main")


def harmonic(results: Results) -> list[Table]:
    """H on every dataset, their mean, and the H of the averages."""
    return per_dataset(results, "h", "harmonic")


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
    columns = [_column(metric, interval=metric in WITH_INTERVAL) for metric in names]
    tables = []
    for eps in radii(results) or ["0"]:
        members = _clean_attacks(results) + [(attack, eps) for attack in attacks_at(results, eps) if eps != "0"]
        rows, cells = [], []
        for attack, radius in members:
            picks = [(metric, lambda m: averages.get(m, attack, radius)) for metric in names]
            rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta.task == SINGLE]
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
        cells = [c for c in results.cells if (c.attack, c.eps) in members and c.meta.task == SINGLE]
        what = f"Accuracy, expected calibration error and H (all in %) at radius {eps}, {_over(averages)}."
        tables.append(_finish(results, f"ablation-{eps.replace('/', '-')}", what, columns, rows, cells, ("Model",)))
    return tables


def by_eps(results: Results) -> list[Table]:
    """Accuracy and ECE against the radius: one block per attack."""
    averages, steps = Averages(results), [None, *radii(results)]  # None: without attack, which an attack at radius 0 is not
    columns = [_column(m, eps or "clean", METRICS[m].title) for m in ("accuracy", "ece") for eps in steps]
    rows, cells = [], []
    attacked = {c.attack for c in results.cells if c.kind != "clean"}
    for attack in [a for a in results.values("attack") if a in attacked] or results.values("attack")[:1]:
        picks = [
            (metric, averages.clean if eps is None else (lambda m, e=eps, a=attack: averages.get(m, a, e)))
            for metric in ("accuracy", "ece") for eps in steps
        ]  # fmt: skip
        rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
        cells += [c for c in results.cells if c.attack == attack and c.meta.task == SINGLE]
    what = f"Accuracy and expected calibration error (in %) against the radius, {_over(averages)}."
    return [_finish(results, "by-eps", what, columns, rows, cells)]


#: What fills a layout of which a run has nothing.
EMPTY = {
    "transfer": "Cells of --attacks transfer:from=MODEL fill it.",
    "coco": "Cells of a multi-label data set, such as --datasets coco-2017, fill it.",
}


def transfer(results: Results) -> list[Table]:
    """Adversarial images made on one model and shown to another: rows attack, columns are attacked."""
    averages = Averages(results)
    tables = []
    for eps in radii(results):
        cells = [c for c in results.cells if c.eps == eps and c.kind == "transfer" and c.meta.task == SINGLE]
        if not cells:
            continue
        columns = [_column("accuracy", results.labels["model"][m], "target") for m in averages.models]
        rows = []
        for attack in dict.fromkeys(c.attack for c in cells):
            entries = [averages.get(model, attack, eps) for model in averages.models]
            rows.append(
                Row((source_of(attack),), tuple(Entry(*e.interval("accuracy")) if e else Entry() for e in entries))
            )
        what = f"Accuracy (in %) of the target on images crafted on the source at radius {eps}, {_over(averages)}."
        tables.append(_finish(results, f"transfer-{eps.replace('/', '-')}", what, columns, rows, cells, ("Source",)))
    return tables or [_finish(results, "transfer", f"Accuracy under transferred attacks. {EMPTY['transfer']}", [], [], [], ("Source",))]


def source_of(attack: str) -> str:
    """The model a transfer attack was crafted on, from its spec."""
    params = parse_spec(attack.split(" #")[0]).params
    return str(params.get("from", attack))


MULTILABEL = ("map", "precision_at_3", "recall_at_3", "f1_at_3", "label_ece")


def coco(results: Results) -> list[Table]:
    """Multi-label sets: mAP, precision, recall, F1 of the three highest scores and class-wise ECE, clean and attacked; H."""
    averages = Averages(results, MULTI)
    tables = []
    for attack in (
        a for a in results.values("attack") if any(c.attack == a and c.kind != "clean" for c in results.cells)
    ):
        steps = [eps for eps in radii(results) if any(averages.get(m, attack, eps) for m in averages.models)]
        if not steps:
            continue
        columns = [_column(name, group="clean") for name in MULTILABEL]
        picks = [(name, averages.clean) for name in MULTILABEL]
        for eps in steps:
            columns += [_column(name, group=eps) for name in (*MULTILABEL, "h_f1")]
            picks += [(name, lambda m, e=eps: averages.get(m, attack, e)) for name in MULTILABEL]
            picks.append(("h_f1", lambda m, e=eps: averages.harmonic(m, attack, e, "f1_at_3", "h_f1")))
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if c.attack == attack and c.meta.task == MULTI]
        label, sets = results.labels["attack"][attack], [results.labels["dataset"][d] for d in averages.datasets]
        what = (
            f"Multi-label recognition (in %) under {label} on {sentence(sets)}. H(F1@3): harmonic mean of the clean and the"
            " attacked F1@3. ECE class: mean over classes of the ECE of the sigmoid of the logit less the image's mean logit."
        )
        tables.append(_finish(results, f"coco-{len(tables) + 1}", what, columns, rows, cells, ("Model",)))
    return tables or [_finish(results, "coco", f"Multi-label recognition. {EMPTY['coco']}", [], [], [], ("Model",))]


def _over(averages: Averages) -> str:
    count = len(averages.datasets)
    return f"averages over {count} data sets" if count > 1 else "one data set"


LAYOUTS: Mapping[str, Callable[[Results], list[Table]]] = {
    "main": main, "harmonic": harmonic, "calibration": calibration, "ablation": ablation, "by-eps": by_eps, "transfer": transfer,
    "coco": coco, "temperature": temperature_tables, "metrics": metric_tables,
    "seeds": seed_tables,
}  # fmt: skip


def build(name: str, results: Results) -> list[Table]:
    """The tables of a layout.

    Raises:
        UserError: unknown layout.
    """
    check(name)
    return LAYOUTS[name](results)


def check(name: str) -> None:
    """Raise `UserError` for a layout that does not exist."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout '{name}'; there are: {', '.join(LAYOUTS)}, all")
