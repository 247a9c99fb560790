"""The layout `coco`: several labels per image."""

from __future__ import annotations

from functools import partial

from .averages import MULTI, Averages, Member, Pick, block
from .evaluate import Results
from .labels import sentence
from .parts import column, finish, radii
from .ragged import missing
from .tables import Table

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
        columns = [column(name, group="clean") for name in MULTILABEL]
        picks: list[tuple[str, Pick]] = [(name, averages.clean) for name in MULTILABEL]
        for eps in steps:
            columns += [column(name, group=eps) for name in (*MULTILABEL, "h_f1")]
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
        tables.append(finish(results, f"coco-{len(tables) + 1}", what, columns, rows, cells, ("Model",), lacking))
    return tables
