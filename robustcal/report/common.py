"""Which samples the cells of a data set have in common: cells may hold beginnings of different length of one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..cell import Cell
from ..types import Records
from .merge import Source


@dataclass(frozen=True)
class Common:
    """The samples on which a data set's cells are compared.

    `ids` is None where every cell holds exactly these; `by_id` says that cells took them in different orders.
    """

    n: int
    ids: frozenset[str] | None = None
    by_id: bool = False


def common_samples(sources: Sequence[Source], notes: list[str]) -> dict[str, Common]:
    """For each data set, what all its cells hold, of cells that hold anything; a note where some hold more.

    What lies beyond a gap, which a killed worker may leave, is not counted: it is no beginning of the order.
    """
    found: dict[str, Common] = {}
    for dataset in dict.fromkeys(source.names["dataset"] for source in sources):
        held = [(source.run.held(source.cell), source) for source in sources if source.names["dataset"] == dataset]
        some = [(count, source) for count, source in held if count]
        if not some:
            continue
        (least, smallest), (most, _) = (choose(some, key=lambda pair: pair[0]) for choose in (min, max))
        beyond = any(sum(source.run.present(source.cell.id).values()) > least for _, source in some)
        orders = {source.cell.identity.order for _, source in some}
        ids = frozenset(smallest.run.first(smallest.cell, least)) if beyond else None
        if beyond and len(orders) > 1:  # beginnings of several orders: what they share is no beginning
            ids = frozenset.intersection(*(frozenset(source.run.first(source.cell, count)) for count, source in some))
            least = len(ids)
        if least < most:
            notes.append(f"samples: cells of '{dataset}' hold {least} to {most}; compared on the {least} they have in common")
        found[dataset] = Common(least, ids, by_id=len(orders) > 1)
    return found


class Reader:
    """The records of a cell, of the common samples only and in one order for all cells."""

    def __init__(self, source: Source, common: Common):
        self.source, self.common = source, common
        self.rows: np.ndarray[Any, Any] | None = None

    def __call__(self, columns: Sequence[str] | None = None) -> Records:
        records = self.source.run.read(self.source.cell.id, columns)
        if self.common.ids is None and not self.common.by_id:
            return records
        if self.rows is None:
            names = records["id"] if "id" in records else self.source.run.read(self.source.cell.id, ("id",))["id"]
            wanted = self.common.ids
            rows = np.arange(len(names)) if wanted is None else np.flatnonzero([name in wanted for name in names])
            self.rows = rows[np.argsort(names[rows].astype(str), kind="stable")] if self.common.by_id else rows
        return {name: values[self.rows] for name, values in records.items()}

    def cell(self, rows: int) -> Cell:
        """The cell as it is compared: of `n` common samples, of which so many have a row."""
        return replace(self.source.cell, n=self.common.n, skipped=self.common.n - rows)
