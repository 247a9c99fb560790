"""The layout `claims`: what a model's card says was published of it, beside what this run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import models, parse_spec
from .averages import SINGLE, Averages
from .captions import protocol
from .evaluate import Results
from .labels import sentence
from .parts import attacks_at, radii, versions_of
from .stats import Replicates
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

CLEAN = "clean"


def claims_of(model: str) -> Mapping[str, Any]:
    """The ``[claims]`` of a model's card: "clean" and radii -> fractions, with `what` and `source`; empty where it has none.

    Numbers that a card states of single data sets are its own fingerprint, not a publication. Another checkpoint under the card's
    name (``fare:FILE``) is another model, of which nothing was claimed.
    """
    spec = parse_spec(model)
    found: Mapping[str, Any] = models.cards().get(spec.name, {}).get("claims", {}) if spec.variant is None else {}
    return found if "what" in found else {}


def claims_tables(results: Results) -> list[Table]:
    """One row per model with claims: published, measured and their difference, clean and at every radius claimed."""
    averages, shown = Averages(results, SINGLE), {cell.model: claims_of(cell.meta.model) for cell in results.cells}
    claimed = {model: claims for model, claims in shown.items() if claims and model in averages.models}
    if not claimed:
        return []
    places = [CLEAN, *(eps for eps in radii(results) if any(eps in claims for claims in claimed.values()))]
    columns, rows = list[Column](), list[Row]()
    for place in places:
        columns += [Column("published", place, True, "", False), Column("measured", place, True, "", True)]
        columns.append(Column("difference", place, True, "", False))
    for model, claims in claimed.items():
        entries = list[Entry]()
        for place in places:
            said, found = claims.get(place), measured(averages, model, place)
            here = found.interval("accuracy") if found else None
            gap = Entry(here.value - said, signed=True) if here and said is not None else Entry()
            entries += [Entry(said), Entry(*here) if here else Entry(), gap]
        rows.append(Row((results.labels["model"][model],), tuple(entries)))
    sources = dict.fromkeys(f"{claims['what']} ({claims['source']})" for claims in claimed.values())
    sets = [results.labels["dataset"][name] for name in averages.datasets]
    short = (
        f"Claims on the models' cards beside the averages of this run, accuracy in %. Published: {'; '.join(sources)}."
        f" Measured: over {sentence(sets)}; attacked: the worst case over the attacks of the radius. Sets, samples and attacks"
        " are the same on both sides only where you made them so: a difference is a question, no finding."
    )
    caption = f"{short} {protocol([cell.meta for cell in results.cells], versions_of(results))}"
    return [Table("claims", caption, ("Model",), tuple(columns), tuple(rows), flag_meanings(), short=short)]


def measured(averages: Averages, model: str, place: str) -> Replicates | None:
    """The clean average, or at a radius that of the attack that leaves least (the worst case, where there are several)."""
    if place == CLEAN:
        return averages.clean(model)
    found = [averages.get(model, attack, place) for attack in attacks_at(averages.results, place)]
    known = [numbers for numbers in found if numbers is not None and "accuracy" in numbers.values]
    return min(known, key=lambda numbers: numbers.values["accuracy"]) if known else None
