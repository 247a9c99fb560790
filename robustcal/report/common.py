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
    """For each data set, what all its cells hold, of cells that hold anything; a note where some hold more or ask for more."""
    found: dict[str, Common] = {}
    for dataset in dict.fromkeys(source.names["dataset"] for source in sources):
        all_held = [(held(source), source) for source in sources if source.names["dataset"] == dataset]
        some = [(count, source) for count, source in all_held if count]
        if not some:
            continue
        (least, smallest), (most, _) = (choose(some, key=lambda pair: pair[0]) for choose in (min, max))
        ids = None
        if least < most:
            ids = _ids(smallest)
            notes.append(f"samples: cells of '{dataset}' hold {least} to {most}; compared on the {least} they have in common")
        orders = {source.cell.identity.order for _, source in some}
        found[dataset] = Common(least, ids, by_id=len(orders) > 1)
    return found


def held(source: Source) -> int:
    """How many samples a cell holds from the beginning of its order without a gap, those without a row included."""
    present, cell = source.run.present(source.cell.id), source.cell
    whole = replace(cell, n=cell.dataset_size)
    count = 0
    for shard in range(whole.shards):
        count += min(present.get(shard, 0), whole.rows(shard))
        if present.get(shard, 0) < whole.rows(shard):
            break
    return count


def _ids(source: Source) -> frozenset[str]:
    """The ids of the samples that a cell holds, those without a row included."""
    return frozenset([*source.run.read(source.cell.id, ("id",))["id"], *source.run.skipped(source.cell.id)])


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
