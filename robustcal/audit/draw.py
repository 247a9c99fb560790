"""Which records are made again: one from each of as many equal stretches of the list of all records, in the order of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """A record: its cell's place among the cells, and its row there."""

    cell: int
    row: int


def draw(rows: Sequence[int], samples: int, seed: int) -> list[Place]:
    """Draw `samples` records of cells that hold `rows` each; all of them where there are no more.

    The list of records is cut into `samples` stretches whose lengths differ by at most one, and one record is drawn from each:
    every record is as likely as any other (up to that one), and no model, data set, attack or radius is left out by chance.
    """
    ends = np.cumsum(rows)
    population = int(ends[-1]) if len(ends) else 0
    samples = min(samples, population)
    edges = np.arange(samples + 1) * population // max(samples, 1)
    chosen = np.random.default_rng([seed, 20011]).integers(edges[:-1], edges[1:]) if samples else np.empty(0, np.int64)
    cells = np.searchsorted(ends, chosen, side="right")
    return [Place(int(cell), int(at - (ends[cell] - rows[cell]))) for cell, at in zip(cells, chosen)]
