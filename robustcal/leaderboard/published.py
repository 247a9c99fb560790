"""Published tables as rows that nobody here checked: beside measured numbers only where all that is known agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..cell import Cell
from ..report.compare import AVERAGE, read_published
from ..report.pairing import MODEL, Accepted, attack_card, bare, differences, facts_of, wanted_of
from ..report.stats import Interval
from ..types import UserError
from .card import ModelCard
from .nouns import Contender, Place, Table, Value

#: Fields of a published protocol that are no part of a column's: they are the table's.
OF_TABLE = (*MODEL, "data set", "radius")


@dataclass(frozen=True)
class Printed:
    """One accuracy as a paper prints it. `names`: what its data set may be called, letters and digits only."""

    key: str
    dataset: str
    names: tuple[str, ...]
    radius: int  # times 255; 0 for clean
    attack: str  # its spec
    accepted: Accepted
    value: float


def published(name: str) -> tuple[list[Contender], list[Printed]]:
    """Rows and accuracies of a comparison's tables, those of averages left out.

    Args:
        name: of a comparison: ``ucat``.

    Raises:
        UserError: there is none, or it has averages only.
    """
    found = read_published(name)
    if all(dataset == AVERAGE for *_, dataset, _ in found.values):
        raise UserError(f"comparison '{name}' has averages only; a board has a table for each data set")
    rows: dict[str, Contender] = {}
    numbers = []
    for (table, method, attack, radius, dataset, metric), value in found.values.items():
        if dataset == AVERAGE or found.card["metrics"].get(metric) != "accuracy":
            continue
        key = f"published-{name}-{table}-{bare(method)}-{len(method)}"
        rows.setdefault(key, Contender(key, ModelCard(method, method, paper=found.card["title"]), source=f"table {table}"))
        accepted = wanted_of(found.card, table, method, attack, radius, dataset)
        kept = {field: values for field, values in accepted.items() if field not in MODEL}
        names = tuple(map(bare, (dataset, *found.card["sets"][dataset]["names"])))
        numbers.append(Printed(key, dataset, names, radius, attack_card(found.card, table, attack)["spec"], kept, value))
    return [*rows.values()], numbers


def put(one: Printed, tables: dict[tuple[str, str, str], Table]) -> None:
    """Put a published accuracy into the column that is its own protocol, or into one of its own."""
    threat = f"ℓ∞ {one.radius}/255" if one.radius else "clean"
    titles = [dataset for dataset, task, _ in tables if task == "single" and bare(dataset) in one.names]
    table = tables.setdefault((titles[0] if titles else one.dataset, "single", threat), {})
    value = Value(Interval(one.value, float("nan"), float("nan")), None)
    for place in table.values():
        if place.metas and _is_same(place.metas[0], one.accepted):
            place.values[one.key] = value
            return
    told: Mapping[str, str] = {field: texts[0] for field, texts in one.accepted.items() if field not in OF_TABLE}
    protocol = {**told, "samples": "all, as published; no records"}
    kind = "white-box" if one.radius else "clean"
    table.setdefault(tuple(sorted(protocol.items())), Place(protocol, kind, one.attack)).values[one.key] = value


def _is_same(cell: Cell, accepted: Accepted) -> bool:
    """Whether a cell is what was published, and on all images."""
    return cell.n == cell.dataset_size and not cell.skipped and not differences(facts_of(cell), accepted)
