"""What the page has beside its leaderboard: layouts as sections, each with what it answers and how it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cell import Cell
from ..types import UserError
from . import layouts, tables
from .again import usable
from .evaluate import Results
from .tables import Entry, Table
from .worst_rows import CALIBRATION

#: Layout -> its heading and what a reader asks it. In the order of the page.
ABOUT: Mapping[str, tuple[str, str]] = {
    "versus": ("One model against the others", "Paired differences from one model, with tests and ratios of calibration errors."),
    "compare": ("Beside published numbers", "Measured numbers beside printed ones, where the two were made in the same way."),
    "claims": ("Beside what was claimed", "Measured numbers beside what the cards of the models claim."),
    "main": ("Robust accuracy, every data set", "How many images are still classified rightly, set by set and on average?"),
    "harmonic": ("Clean and robust as one number", "H, the harmonic mean of clean and attacked accuracy, on every data set."),
    "calibration": ("Calibration and uncertainty", "Are confidences right under attack, and which way does uncertainty move?"),
    "ablation": ("One row per model", "Averages of accuracy, ECE and H, clean and attacked, side by side."),
    "by-eps": ("Against the radius", "How fast do accuracy and calibration go as the radius grows?"),
    "metrics": ("Further numbers", "The numbers that were asked for by name."),
    "conformal": ("Conformal sets", "Do sets made to hold the truth nine times in ten still do so under attack?"),
    "premise": ("Is uncertainty a warning?", "Does it rise with an attack's strength, and is it high where the model is wrong?"),
    "ood": ("Known and unknown", "Are images of unknown classes told from known ones, under attack too?"),
    "calibrators": ("Post-hoc calibrators", "What a temperature and its kin repair, fitted to clean or to attacked records."),
    "trade-off": ("Trade-off", "What robustness costs in clean accuracy, along models that differ in one number."),
    "minimal-norm": ("Minimal perturbations", "Accuracy at every radius, from attacks that look for the nearest mistake."),
    "transfer": ("Transfer", "Images crafted on one model, shown to the others."),
    "corruptions": ("Corruptions", "Shifts that no adversary chose."),
    "adaptive": ("Defences, attacked step by step", "What is left of a test-time defence when the attack knows of it."),
    "coco": ("Several labels per image", "Mean average precision, precision and recall."),
    "prompts": ("Prompts", "How far the numbers move when only the class prompts change."),
    "prompt-transfer": ("Other prompts for the attacker", "Does an attack crafted with one prompt work where another reads?"),
    "seeds": ("Training seeds", "How far models differ that were trained alike up to the seed."),
    "costs": ("Costs", "Passes and seconds of every cell."),
}  # fmt: skip
#: Read the records once more and take long on a large run: made where `--layout` names them, else told how.
SLOW = ("conformal", "premise", "calibrators")
#: Of no use to who did not ask for them, or shown by the page's own leaderboard and charts.
ASKED_ONLY = ("compare", "claims", "metrics", "costs", "main", "harmonic", "calibration", "ablation", "by-eps")


#: Layout -> the task of the cells without which it has nothing.
OF_TASK = {"ood": "ood", "coco": "multi"}


def sections(results: Results, asked: Mapping[str, Sequence[Table]]) -> list[dict[str, Any]]:
    """Name, title, question, and tables or the command that makes them, of every layout that has something to say.

    Args:
        asked: layout -> its tables, where they were made already.
    """
    found, tasks = [], {cell.meta.task for cell in results.cells}
    attacked = any(cell.kind != "clean" and usable(cell.meta) for cell in results.cells)
    for name, (title, question) in ABOUT.items():
        made = asked.get(name)
        there = name in layouts.LAYOUTS and OF_TASK.get(name) in (None, *tasks)
        if made is None and there and name not in (*SLOW, *ASKED_ONLY):
            made = _built(name, results)
        if made:
            found.append({"name": name, "title": title, "about": question, "tables": [shown(table) for table in made]})
        elif name in SLOW and attacked:
            found.append({"name": name, "title": title, "about": question, "command": command(name)})
    return found


def _built(name: str, results: Results) -> list[Table]:
    """The tables of a layout; none where it cannot read the names of this run, which may be those of strangers."""
    try:
        return [table for table in layouts.build(name, results) if table.rows]
    except UserError:
        return []


def command(layout: str) -> str:
    """What makes the section of a layout."""
    return f"robustcal report RUN --layout {layout} --format html"


def about_attack(meta: Cell, labels: Mapping[str, str]) -> str:
    """What a row is that no attack made alone, "" of all others. `labels`: of attacks, by their whole names."""
    if meta.kind != "worst":
        return ""
    over = f"of {', '.join(labels.get(attack, attack) for attack in meta.over)}"
    if meta.identity.attack != CALIBRATION.name:
        return f"For each sample the attack of this radius that does most harm, {over}."
    return (
        f"For each sample the attack of this radius with the widest gap between confidence and correctness, {over}. It has"
        " calibration numbers only; the worst ECE of these attacks lies between its ECE and its mean gap."
    )


def shown(table: Table) -> dict[str, Any]:
    """A table as the page draws it: every number as text, with its interval, its rank and its flags."""
    return {
        "name": table.name, "caption": table.short or table.caption, "labels": table.labels,
        "columns": [[column.group, tables.heading(column)] for column in table.columns],
        "rows": [
            {"labels": row.labels, "rule": row.rule, "entries": [_entry(e, c) for e, c in zip(row.entries, table.columns)]}
            for row in table.rows
        ],
        "flags": table.flags, "remarks": table.remarks,
    }  # fmt: skip


def _entry(entry: Entry, column: tables.Column) -> list[Any]:
    if entry.value is None or entry.empty:
        return []
    text = tables.number(entry.value, column, entry.signed)
    return [text, tables.interval(entry, column), entry.rank, list(entry.flags)]
