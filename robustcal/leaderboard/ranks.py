"""Ranks with the doubt that is in them: which models of a column cannot be told apart on its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..report.stats import Replicates, difference, holm
from ..report.words import word

ALPHA = 0.05


@dataclass(frozen=True)
class Standing:
    """Where a model stands in a column.

    Attributes:
        first, last: the ranks it can have: 1 + how many are significantly better, and n - how many are significantly worse.
        groups: letters; models that share one cannot be told apart.
    """

    first: int
    last: int
    groups: str

    @property
    def rank(self) -> str:
        """``2`` or ``1-3``."""
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


def standings(numbers: Mapping[str, Replicates], name: str, alpha: float = ALPHA) -> dict[str, Standing]:
    """The standing of every model that has the number, best value first.

    Each pair is tested on the samples that both have (`stats.difference`: for shares of samples the exact McNemar test) and
    the p-values of all pairs are corrected together (Holm, 1979), so that all intervals of ranks hold at once with probability
    1 - alpha: the intervals of Al Mohamad, Goeman and van Zwet (2022, Biometrics 78), who use Tukey's test. Without a claim, for
    too few samples, nobody is told apart.

    A model that is alone has none.

    Args:
        numbers: model -> its numbers, all on the same samples.
    """
    sign = -1.0 if word(name).better == "higher" else 1.0
    known = [key for key in numbers if np.isfinite(numbers[key].values.get(name, np.nan))]
    if len(known) < 2:
        return {}
    order = sorted(known, key=lambda key: sign * numbers[key].values[name])
    pairs = list(combinations(range(len(order)), 2))
    p = holm([difference(numbers[order[i]], numbers[order[j]], name).p for i, j in pairs])
    apart = {pair for pair, value in zip(pairs, p, strict=True) if value < alpha}
    better = [sum((i, at) in apart for i in range(at)) for at in range(len(order))]
    worse = [sum((at, j) in apart for j in range(at + 1, len(order))) for at in range(len(order))]
    letters = _letters(len(order), apart)
    return {key: Standing(1 + better[at], len(order) - worse[at], letters[at]) for at, key in enumerate(order)}


def _letters(count: int, apart: set[tuple[int, int]]) -> list[str]:
    """For each place the letters of its groups: the longest runs of places no two of which are apart."""
    runs: list[tuple[int, int]] = []
    for start in range(count):
        stop = start + 1
        while stop < count and not any((at, stop) in apart for at in range(start, stop)):
            stop += 1
        if not runs or stop > runs[-1][1]:
            runs.append((start, stop))
    names = [_letter(at) for at in range(len(runs))]
    return ["".join(name for name, (start, stop) in zip(names, runs) if start <= at < stop) for at in range(count)]


def _letter(at: int) -> str:
    return (_letter(at // 26 - 1) if at >= 26 else "") + chr(ord("a") + at % 26)
