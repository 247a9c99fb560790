"""Every layout by its name, and what fills one that is empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..types import UserError
from .adaptive import adaptive_tables
from .again import by_resolution
from .asked import metric_tables
from .claimed import claims_tables
from .corruptions import corruption_tables
from .evaluate import Results
from .many_labels import coco
from .minimal_norm import minimal_norm_tables
from .ood import ood_tables
from .parts import attacks_at, radii
from .posthoc import calibrator_tables
from .premise import premise_tables
from .prompt_sets import prompt_tables
from .prompt_transfer import prompt_transfer_tables
from .seeds import seed_tables
from .sets import conformal_tables
from .spent import cost_tables
from .standard import ablation, by_eps, calibration, harmonic, main, transfer
from .tables import Table
from .trade_off import trade_off_tables
from .versus import versus_tables

__all__ = ["LAYOUTS", "attacks_at", "build", "check", "radii", "why_empty"]


#: What fills a layout of which a run has nothing.
EMPTY = {
    "transfer": "Cells of --attacks transfer:from=MODEL fill it.",
    "coco": "Cells of a multi-label data set, such as --datasets coco-2017, fill it.",
    "versus": "Two models on the same data set fill it.",
    "seeds": "Models that say how they were trained fill it: bundled ones, and run folders of robustcal train.",
    "main": "Cells with one label per image fill it.",
    "harmonic": "Attacked cells with one label per image fill it.",
    "trade-off": "Models that differ in one number fill it, such as interpolate:a=tiny-clip:b=tiny-ucat:t=0.5 and its ends.",
    "prompt-transfer": "Cells of --attacks 'reprompted:template=a photo of a {}' fill it.",
    "prompts": "The same data set with other prompts= fills it.",
    "premise": "Cells with one label per image fill it.",
    "corruptions": "Clean cells and cells of --attacks corruption:all fill it.",
    "ood": "Cells of --datasets SPEC ood:images=OTHER:classes=SPEC fill it.",
    "adaptive": "Models with a test-time defence fill it, such as ttc:model=SPEC; --suite tiny-adaptive is an example.",
    "claims": "Models whose cards tell what was published of them fill it, such as fare2-vit-l-14.",
    "minimal-norm": "Cells of --attacks fmn or ddn fill it: one run at a large radius.",
    "conformal": "Clean cells with one label per image and no more than 1024 classes fill it.",
}
#: What fills one of averages that is empty.
NO_AVERAGE = "No data set is in the run for all shown models, so there is no average: --layout main shows what there is."


LAYOUTS: Mapping[str, Callable[[Results], list[Table]]] = {
    "main": main, "harmonic": harmonic, "calibration": calibration, "ablation": ablation, "by-eps": by_eps, "transfer": transfer,
    "coco": coco, "calibrators": calibrator_tables, "conformal": conformal_tables, "premise": premise_tables,
    "trade-off": trade_off_tables, "prompts": prompt_tables,
    "prompt-transfer": prompt_transfer_tables, "corruptions": corruption_tables,
    "adaptive": adaptive_tables, "claims": claims_tables, "ood": ood_tables, "minimal-norm": minimal_norm_tables,
    "metrics": metric_tables,
    "seeds": seed_tables, "versus": versus_tables, "costs": cost_tables,
}  # fmt: skip

#: Layouts without averages. All others have tables of their own for each resolution.
WHOLE = ("calibrators", "costs", "metrics", "minimal-norm", "ood", "prompt-transfer", "prompts")
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
