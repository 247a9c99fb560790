"""Tables against what else than the radius rises: severity of a shift, steps or queries of an attack, sigma of noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..registry import parse_spec
from ..types import Spec
from .again import members
from .averages import Averages, Member, Pick, block
from .evaluate import Measured, Results
from .tables import Row

#: Parameters that are columns where cells differ in them.
PARAMETERS = ("severity", "steps", "queries", "sigma", "restarts")
#: What cells share up to one parameter: their attack without it, and their radius.
Group = tuple[str, str]


def varied(results: Results, parameter: str) -> dict[Group, dict[float, Member]]:
    """Attack without a parameter, and radius -> value -> attack and radius, ascending; where there are several values.

    One severity is an axis too: it has no radius whose column it could stand in.
    """
    found: dict[Group, dict[float, Member]] = {}
    for attack, eps in members(results, ("control", "white-box", "black-box", "transfer", "shift")):
        spec = parse_spec(attack.split(" #")[0])
        try:
            value = float(str(spec.params[parameter]))
        except (KeyError, ValueError):
            continue
        rest = {key: other for key, other in spec.params.items() if key != parameter}
        found.setdefault((str(Spec(spec.name, spec.variant, rest)), eps), {})[value] = attack, eps
    least = 1 if parameter == "severity" else 2
    return {group: dict(sorted(values.items())) for group, values in found.items() if len(values) >= least}


def has_axis(cell: Measured) -> bool:
    """Whether a cell has a severity in the place of a radius."""
    return cell.kind == "shift" and "severity" in parse_spec(cell.attack.split(" #")[0]).params


def axis_rows(
    results: Results, averages: Averages, groups: dict[Group, dict[float, Member]], metrics: Sequence[str], names: dict[str, str]
) -> tuple[list[float], list[Row], dict[str, list[Member]]]:
    """Values of one parameter, rows (attack and radius, model) with each metric clean and at every value; and who is averaged."""
    values, rows, over = sorted({value for found in groups.values() for value in found}), list[Row](), dict[str, list[Member]]()
    for group, found in groups.items():
        here = [averages.clean_member, *found.values()]
        sets = averages.sets(*here)
        places = [averages.clean_member, *(found.get(value) for value in values)]
        picks: list[tuple[str, Pick]] = [
            (metric, partial(averages.get, attack=at[0], eps=at[1], sets=sets) if at else _nothing)
            for metric in metrics for at in places
        ]  # fmt: skip
        title = names.get(group[0], group[0]) + ("" if group[1] == "0" else f" at {group[1]}")
        over[title] = here
        rows += block(results, averages.models, (title,), picks)
    return values, rows, over


def _nothing(model: str) -> None:
    """The pick of a place where an attack was not run."""
