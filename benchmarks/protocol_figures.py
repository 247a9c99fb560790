"""Figures and tables of the protocol study: one question, one figure, from the runs' cells.

Called by `python benchmarks/study.py protocol`. Bars are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import robustcal
from robustcal import registry
from robustcal.report.lettering import drawable, legend
from robustcal.report.style import label_percent, look, panels, save, styled

#: What is asked of the images that an attack hands back, in words.
RULES = {
    "pgd:steps=20:return=best": "PGD-20, highest loss",
    "pgd:steps=20:return=last": "PGD-20, last iterate",
    "pgd:steps=20:step=2/255:return=best": "PGD-20, step = radius, highest loss",
    "pgd:steps=20:step=2/255:return=last": "PGD-20, step = radius, last iterate",
    "torchattacks:PGD:steps=20": "torchattacks PGD-20, last",
    "cw:steps=20": "CW-20, highest loss",
    "apgd": "APGD-100, highest loss",
    "autoattack:paper": "AutoAttack (paper), else clean",
    "autoattack": "AutoAttack (standard), else clean",
    "square:queries=1000": "Square, 1000 queries",
    "confidence:goal=max": "maximum miscalibration",
}
NUMBERS = (("accuracy", "accuracy %"), ("ece", "calibration error (ECE) %"))


def draw(runs: Sequence[Path], out: Path) -> None:
    """Write ``figures/return-rule``, ``figures/resolution`` and ``figures/precision`` as PNG, and ``precision.csv``."""
    fp32, fp16 = (cells(run) for run in runs)
    with styled():
        save(by_rule(fp32[fp32.side.isna()]), out / "figures" / "return-rule", ("png",))
        save(by_side(fp32[fp32.rule == "pgd:steps=20:return=best"]), out / "figures" / "resolution", ("png",))
        both = fp32.merge(fp16, on=["model", "dataset", "rule", "side"], suffixes=("_fp32", "_fp16"))
        save(by_precision(both), out / "figures" / "precision", ("png",))
    columns = [f"{name}_{kind}" for name, _ in NUMBERS for kind in ("fp32", "fp16")]
    flags = ["flags_fp32", "flags_fp16"]
    both[["model", "dataset", "rule", *columns, *flags]].to_csv(out / "precision.csv", index=False, float_format="%.4f")


def cells(run: Path) -> pd.DataFrame:
    """The cells of a run; `rule` is the attack as the suite writes it, `side` the resolution where it is not 32."""
    frame = robustcal.frame(run).query("attack_spec != 'worst'").copy()
    specs = {str(registry.attacks.spec(text)): text for text in [*RULES, "clean"]}
    frame["rule"] = frame.attack_spec.map(specs)
    frame["side"] = frame.dataset_spec.str.extract(r"resolution=(\d+)")[0].astype(float).where(lambda side: side != 32)
    frame["dataset"] = frame.dataset_spec.str.partition(":")[0]
    frame["model"] = frame.model_spec.str.partition(":")[0]
    return frame


def by_rule(frame: pd.DataFrame) -> Figure:
    """Accuracy and ECE of the images each attack hands back: a column of panels per data set."""
    sets, models = list(frame.dataset.unique()), list(frame.model.unique())
    rules = [rule for rule in RULES if rule in set(frame.rule)]
    figure, axes = panels(len(sets), 2, 2.5, 0.7 + 0.16 * len(rules), sharey=True)
    for row, (name, title) in enumerate(NUMBERS):
        for column, dataset in enumerate(sets):
            ax = axes[row * len(sets) + column]
            for i, model in enumerate(models):
                here = frame[(frame.dataset == dataset) & (frame.model == model)].set_index("rule").reindex(rules)
                place = np.arange(len(rules)) + beside(i, len(models), 0.22)
                points(ax, here, name, place, model, i, across=False)
            ax.set_yticks(range(len(rules)), [RULES[rule] for rule in rules])
            ax.grid(axis="x")
            ax.set_xlabel(title)
            ax.set_title(dataset if row == 0 else "")
            label_percent(ax, x=True, y=False, limit=False)
            ax.set_xlim(left=0)
    axes[0].invert_yaxis()
    legend(figure, axes)
    return figure


def by_side(frame: pd.DataFrame) -> Figure:
    """Accuracy and ECE against the resolution at which the attack may change the image."""
    frame = frame.assign(side=frame.side.fillna(32))
    sets, models = list(frame.dataset.unique()), list(frame.model.unique())
    figure, axes = panels(len(sets), 2, 2.5, 2.2, sharex=True)
    for row, (name, title) in enumerate(NUMBERS):
        for column, dataset in enumerate(sets):
            ax = axes[row * len(sets) + column]
            for i, model in enumerate(models):
                here = frame[(frame.dataset == dataset) & (frame.model == model)].sort_values("side")
                points(ax, here, name, np.log2(here.side) + beside(i, len(models), 0.06), model, i, across=True)
            sides = sorted(frame.side.unique())
            ax.set_xticks(np.log2(sides), [f"{side:g}" for side in sides])
            ax.set_title(dataset if row == 0 else "")
            ax.set_xlabel("attacked at, pixels a side" if row else "")
            ax.set_ylabel(title if column == 0 else "")
            ax.grid(axis="y")
            label_percent(ax, limit=False)
            ax.set_ylim(bottom=0)
    legend(figure, axes)
    return figure


def by_precision(both: pd.DataFrame) -> Figure:
    """What changes when the search runs in fp16: fp16 minus fp32, in points; the verdict is fp32's in both."""
    both = both[both.rule != "clean"]
    rules, models = list(dict.fromkeys(both.rule)), list(both.model.unique())
    figure, axes = panels(2, 1, 3.2, 1.0 + 0.3 * len(rules), sharey=True)
    for ax, (name, title) in zip(axes, NUMBERS):
        for i, model in enumerate(models):
            here = both[both.model == model]
            change = 100 * (here[f"{name}_fp16"] - here[f"{name}_fp32"])
            place = here.rule.map(rules.index) + beside(i, len(models), 0.2)
            ax.plot(change, place, label=drawable(model), **{**look(i), "linestyle": "none", "markersize": 4})
        ax.set_yticks(range(len(rules)), [RULES[rule] for rule in rules])
        ax.axvline(0, linewidth=0.6, color="black")
        ax.set_xlabel(f"{title.replace(' %', '')}, points")
        ax.set_title("search in fp16 minus fp32")
        ax.grid(axis="x")
    axes[0].invert_yaxis()
    legend(figure, axes)
    return figure


def beside(number: int, count: int, step: float) -> float:
    """Where the number-th of several models stands beside their common place: `step` apart, all of them within four steps."""
    return (number - (count - 1) / 2) * min(step, 4 * step / count)


def points(ax, here: pd.DataFrame, name: str, place, model: str, i: int, across: bool) -> None:
    """Values with their intervals at these places of the other axis."""
    value = here[name].to_numpy()
    bars = np.abs([value - here[f"{name}_lo"], here[f"{name}_hi"] - value])
    style = {**look(i), "markersize": 3.5, "elinewidth": 0.7, "label": drawable(model)}
    if across:
        ax.errorbar(place, value, bars, **style)
    else:
        ax.errorbar(value, place, xerr=bars, **{**style, "linestyle": "none"})
