"""The tables a report is made of: which cells stand where, and what is averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..registry import parse_spec
from ..types import UserError
from .again import by_resolution
from .asked import metric_tables
from .averages import MULTI, SINGLE, Averages, Member, Pick, block
from .axes import PARAMETERS, axis_rows, has_axis, varied
from .captions import SHORT_MARKS, marks_note, protocol
from .evaluate import Measured, Results
from .labels import sentence
from .ood import ood_tables
from .posthoc import calibrator_tables
from .premise import premise_tables
from .prompt_sets import prompt_tables
from .ragged import missing, over
from .seeds import seed_tables
from .sets import conformal_tables
from .stats import Replicates
from .tables import Column, Entry, Row, Table
from .trade_off import trade_off_tables
from .versus import versus_tables
from .words import BINNED, METRICS, flag_meanings


def attacks_at(results: Results, eps: str) -> list[str]:
    """Attacks that ran at a radius, the worst case last."""
    here = {cell.attack for cell in results.cells if cell.eps == eps and cell.kind != "clean"}
    return [attack for attack in results.values("attack") if attack in here]


def radii(results: Results) -> list[str]:
    """Radii of attacked cells, ascending."""
    return [eps for eps in results.values("eps") if any(c.eps == eps and c.kind != "clean" for c in results.cells)]


def at_radius(eps: str) -> str:
    """``at radius 1/255``; shifts and clean images have none."""
    return "without a radius" if eps == "0" else f"at radius {eps}"


def _clean_attacks(results: Results) -> list[tuple[str, str]]:
    return [(attack, "0") for attack in dict.fromkeys(c.attack for c in results.cells if c.kind == "clean")]


def _column(name: str, title: str | None = None, group: str = "", interval: bool = False) -> Column:
    word = METRICS[name]
    percent = word.unit == "fraction"
    return Column(title or word.short, group, percent, word.better, interval, 2 if percent else 3, metric=name)


def _finish(
    results: Results, name: str, what: str, columns: Sequence[Column], rows: Sequence[Row], cells: Iterable[Measured],
    labels: Sequence[str] = ("Attack", "Model"), lacking: str = "",
) -> Table:  # fmt: skip
    """A table with its captions. `lacking`: what is not in the run, see `ragged.missing`."""
    metas = [cell.meta for cell in cells]
    note = marks_note(any(column.interval for column in columns))
    short = " ".join(filter(None, [what, _bins(results, columns), lacking]))
    caption = f"{short} {protocol(metas, versions_of(results))} {note}" if metas else f"{what} The run has no such cells."
    short = f"{short} {SHORT_MARKS}"
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings(), short=short)


def _bins(results: Results, columns: Iterable[Column]) -> str:
    return f"Calibration errors are over {results.bins} bins." if any(c.metric in BINNED for c in columns) else ""


def versions_of(results: Results) -> Mapping[str, str]:
    """Versions of what computed the first of the runs."""
    versions: Mapping[str, str] = results.runs[0].header.get("versions", {}) if results.runs else {}
    return versions


def per_dataset(results: Results, metric: str, name: str) -> list[Table]:
    """Methods x datasets with the average (and H for accuracy and H): one table per radius, one block per attack."""
    averages = Averages(results)
    with_h, h = metric in ("accuracy", "h"), metric == "h"
    one: Callable[..., Replicates | Measured | None] = averages.harmonic_on if h else results.get
    mean: Callable[..., Replicates | None] = averages.mean_harmonic if h else averages.get
    tables, clean = [], _clean_attacks(results)
    for eps in radii(results) or ["0"]:
        members = [*([] if h else clean), *((attack, eps) for attack in attacks_at(results, eps))]
        columns = [_column(metric, results.labels["dataset"][d]) for d in averages.datasets] + [
            _column(metric, "Average")
        ]
        columns += [_column("h", "H")] if with_h else []
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
        tables.append(_finish(results, f"{name}-{eps.replace('/', '-')}", what, columns, rows, cells, lacking=lacking))
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
    columns = [_column(metric, interval=metric in WITH_INTERVAL) for metric in names]
    tables = []
    for eps in radii(results) or ["0"]:
        members = [*_clean_attacks(results), *((attack, eps) for attack in attacks_at(results, eps))]
        rows, cells = list[Row](), list[Measured]()
        for attack, radius in members:
            picks: list[tuple[str, Pick]] = [(metric, partial(averages.get, attack=attack, eps=radius)) for metric in names]
            rows += block(results, averages.models, (results.labels["attack"][attack],), picks)
            cells += [c for c in results.cells if (c.attack, c.eps) == (attack, radius) and c.meta.task == SINGLE]
        groups = {results.labels["attack"][attack]: [(attack, radius)] for attack, radius in members}
        text = f"{title} {at_radius(eps)}, {over(averages, groups)}; {what}."
        lacking = missing(results, averages, members)
        tables.append(_finish(results, f"{name}-{eps.replace('/', '-')}", text, columns, rows, cells, lacking=lacking))
    return tables


def ablation(results: Results) -> list[Table]:
    """One row per model: clean and attacked averages of accuracy and ECE, and H, side by side."""
    averages = Averages(results)
    tables = []
    for eps in radii(results) or ["0"]:
        members = [*_clean_attacks(results), *((attack, eps) for attack in attacks_at(results, eps))]
        columns, picks = list[Column](), list[tuple[str, Pick]]()
        for attack, radius in members:
            at = {"attack": attack, "eps": radius}
            group = results.labels["attack"][attack]
            columns += [_column("accuracy", "Acc", group), _column("ece", "ECE", group)]
            picks += [(name, partial(averages.get, **at)) for name in ("accuracy", "ece")]
            if (attack, radius) not in _clean_attacks(results):
                columns.append(_column("h", "H", group))
                picks.append(("h", partial(averages.harmonic, **at)))
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if (c.attack, c.eps) in members and c.meta.task == SINGLE]
        groups = {results.labels["attack"][attack]: [(attack, radius)] for attack, radius in members}
        what = f"Accuracy, expected calibration error and H (all in %) {at_radius(eps)}, {over(averages, groups)}."
        lacking = missing(results, averages, members)
        tables.append(_finish(results, f"ablation-{eps.replace('/', '-')}", what, columns, rows, cells, ("Model",), lacking))
    return tables


def by_eps(results: Results) -> list[Table]:
    """Accuracy and ECE against the radius: one block per attack."""
    averages = Averages(results)
    sizes = [eps for eps in radii(results) if any(c.eps == eps and c.kind != "clean" and not has_axis(c) for c in results.cells)]
    steps = [None, *sizes]  # None: without attack, which an attack at radius 0 is not
    columns = [_column(m, eps or "clean", METRICS[m].title) for m in ("accuracy", "ece") for eps in steps]
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
    return [*([_finish(results, "by-eps", what, columns, rows, cells, lacking=lacking)] if rows or not others else []), *others]


def _by_parameters(results: Results, averages: Averages) -> list[Table]:
    """Accuracy and ECE against severity, steps, queries ... where cells differ in them: one block per attack and radius."""
    tables = []
    for name in PARAMETERS:
        if not (groups := varied(results, name)):
            continue
        values, rows, over_what = axis_rows(results, averages, groups, ("accuracy", "ece"), results.labels["attack"])
        titles = ["clean", *(f"{value:g}" for value in values)]
        columns = [_column(metric, title, METRICS[metric].title) for metric in ("accuracy", "ece") for title in titles]
        here = {member for found in groups.values() for member in found.values()}
        cells = [c for c in results.cells if (c.attack, c.eps) in here and c.meta.task == SINGLE]
        what = f"Accuracy and expected calibration error (in %) against {name}, {over(averages, over_what)}."
        lacking = missing(results, averages, [member for held in over_what.values() for member in held])
        tables.append(_finish(results, f"by-{name}", what, columns, rows, cells, lacking=lacking))
    return tables


def nothing(model: str) -> None:
    """The pick of a place that a block leaves empty."""


#: What fills a layout of which a run has nothing.
EMPTY = {
    "transfer": "Cells of --attacks transfer:from=MODEL fill it.",
    "coco": "Cells of a multi-label data set, such as --datasets coco-2017, fill it.",
    "versus": "Two models on the same data set fill it.",
    "seeds": "Models that say how they were trained fill it: bundled ones, and run folders of robustcal train.",
    "main": "Cells with one label per image fill it.",
    "harmonic": "Attacked cells with one label per image fill it.",
    "trade-off": "Models that differ in one number fill it, such as interpolate:a=clip:b=ucat:t=0.5, clip and ucat.",
    "prompts": "The same data set with other prompts= fills it.",
    "premise": "Cells with one label per image fill it.",
    "ood": "Cells of --datasets SPEC ood:images=OTHER:classes=SPEC fill it.",
    "conformal": "Clean cells with one label per image and no more than 1024 classes fill it.",
}
#: What fills one of averages that is empty.
NO_AVERAGE = "No data set is in the run for all shown models, so there is no average: --layout main shows what there is."


def transfer(results: Results) -> list[Table]:
    """Adversarial images made on one model and shown to another: rows attack, columns are attacked."""
    averages = Averages(results)
    tables = []
    for eps in radii(results):
        cells = [c for c in results.cells if c.eps == eps and c.kind == "transfer" and c.meta.task == SINGLE]
        if not cells:
            continue
        columns = [_column("accuracy", results.labels["model"][m], "target") for m in averages.models]
        groups = {results.labels["attack"][attack]: [(attack, eps)] for attack in dict.fromkeys(c.attack for c in cells)}
        rows = []
        for attack in dict.fromkeys(c.attack for c in cells):
            entries = [averages.get(model, attack, eps) for model in averages.models]
            rows.append(
                Row((source_of(attack),), tuple(Entry(*e.interval("accuracy")) if e else Entry() for e in entries))
            )
        what = f"Accuracy (in %) of the target on images crafted on the source at radius {eps}, {over(averages, groups)}."
        tables.append(_finish(results, f"transfer-{eps.replace('/', '-')}", what, columns, rows, cells, ("Source",)))
    return tables


def source_of(attack: str) -> str:
    """The model a transfer attack was crafted on, from its spec."""
    params = parse_spec(attack.split(" #")[0]).params
    return str(params.get("from", attack))


MULTILABEL = ("map", "precision_at_3", "recall_at_3", "f1_at_3", "label_ece")


def coco(results: Results) -> list[Table]:
    """Multi-label sets: mAP, precision, recall, F1 of the three highest scores and class-wise ECE, clean and attacked; H."""
    averages = Averages(results, MULTI)
    tables: list[Table] = []
    for attack in (
        a for a in results.values("attack") if any(c.attack == a and c.kind != "clean" for c in results.cells)
    ):
        steps = [eps for eps in radii(results) if any(averages.get(m, attack, eps) for m in averages.models)]
        if not steps:
            continue
        columns = [_column(name, group="clean") for name in MULTILABEL]
        picks: list[tuple[str, Pick]] = [(name, averages.clean) for name in MULTILABEL]
        for eps in steps:
            columns += [_column(name, group=eps) for name in (*MULTILABEL, "h_f1")]
            picks += [(name, partial(averages.get, attack=attack, eps=eps)) for name in MULTILABEL]
            picks.append(("h_f1", partial(averages.harmonic, attack=attack, eps=eps, of="f1_at_3", name="h_f1")))
        rows = block(results, averages.models, (), picks)
        cells = [c for c in results.cells if c.attack == attack and c.meta.task == MULTI]
        here: list[Member] = [averages.clean_member, *((attack, eps) for eps in steps)]
        label, sets = results.labels["attack"][attack], [results.labels["dataset"][d] for d in averages.datasets]
        lacking = missing(results, averages, here)
        what = (
            f"Multi-label recognition (in %) under {label} on {sentence(sets)}. H(F1@3): harmonic mean of the clean and the"
            " attacked F1@3. ECE class: mean over classes of the ECE of the sigmoid of the logit less the image's mean logit."
        )
        tables.append(_finish(results, f"coco-{len(tables) + 1}", what, columns, rows, cells, ("Model",), lacking))
    return tables


LAYOUTS: Mapping[str, Callable[[Results], list[Table]]] = {
    "main": main, "harmonic": harmonic, "calibration": calibration, "ablation": ablation, "by-eps": by_eps, "transfer": transfer,
    "coco": coco, "calibrators": calibrator_tables, "conformal": conformal_tables, "premise": premise_tables,
    "trade-off": trade_off_tables, "prompts": prompt_tables,
    "ood": ood_tables,
    "metrics": metric_tables,
    "seeds": seed_tables, "versus": versus_tables,
}  # fmt: skip

#: Layouts without averages. All others have tables of their own for each resolution.
WHOLE = ("calibrators", "metrics", "ood", "prompts")
#: Former names of layouts.
RENAMED = {"temperature": "calibrators"}


def build(name: str, results: Results) -> list[Table]:
    """The tables of a layout; where a run has several resolutions, which are several threat models, one set of them for each.

    Raises:
        UserError: unknown layout.
    """
    check(name)
    parts = list(by_resolution(results)) if name not in WHOLE else []
    if len(parts) < 2:
        return LAYOUTS[name](results)
    made = [(side, table) for side, part in parts for table in LAYOUTS[name](part) if table.rows]
    return [
        replace(t, name=f"{t.name}-{side}", caption=f"{side} pixels. {t.caption}", short=f"{side} pixels. {t.short}")
        for side, t in made
    ]


def why_empty(name: str) -> str:
    """What a user can do about a layout of which a run has nothing."""
    return EMPTY.get(name, NO_AVERAGE)


def check(name: str) -> None:
    """Raise `UserError` for a layout that does not exist."""
    if name in RENAMED:
        raise UserError(f"layout '{name}' is called '{RENAMED[name]}' now")
    if name not in LAYOUTS:
        raise UserError(f"unknown layout '{name}'; there are: {', '.join(LAYOUTS)}, all")
