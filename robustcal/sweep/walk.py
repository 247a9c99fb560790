"""In which order a worker looks for shards: what is in memory is used before it is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..cell import SHARD, Cell


@dataclass(frozen=True)
class Stretch:
    """The shards from `low` up to `high` of cells that differ in their radius alone: they share images and start noise."""

    cells: tuple[Cell, ...]
    low: int
    high: int

    def __contains__(self, shard: int) -> bool:
        return self.low <= shard < self.high

    def of(self, cells: Iterable[Cell]) -> Stretch:
        """The same shards of these cells."""
        return replace(self, cells=tuple(cells))


def stretches(cells: Sequence[Cell], memory: int, first: int = 0) -> list[Stretch]:
    """All shards of some cells in the order of a worker, from the cell number `first` on and round to it.

    A data set whose pixels fit into `memory` bytes is gone through cell by cell; a larger one in blocks that do, each by
    all models and attacks before the next.
    """
    found: list[Stretch] = []
    start = 0
    for _, part in groupby(cells, key=lambda cell: cell.dataset):
        alike = groupby(part, key=lambda cell: (cell.dataset, cell.model, cell.identity.weights, cell.attack))
        bundles = [tuple(bundle) for _, bundle in alike]
        most = max(cell.shards for bundle in bundles for cell in bundle)
        side = bundles[0][0].resolution
        block = max(1, memory // (3 * side * side * SHARD))
        for low in range(0, most, block):
            for bundle in bundles:
                if any(cell.shards > low for cell in bundle):
                    found.append(Stretch(bundle, low, low + block))
                    if low == 0 and cells[first] in bundle:
                        start = len(found) - 1
    return found[start:] + found[:start]
