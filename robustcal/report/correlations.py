"""Rank correlations of uncertainties with strength, with being wrong and with being unknown, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.rank import RankCorrelation
from ..types import Records
from .again import readers, usable
from .common import Reader
from .courses import Course
from .evaluate import Measured, Results
from .proportions import Samples
from .replicates import Replicates, stretched
from .resample import Resamples

COLUMNS = ("id", "correct", "confidence", "entropy", "au", "log_eu")


@dataclass(frozen=True)
class Uncertainty:
    """A reading of uncertainty: its title, its column of the records and the sign that makes larger mean less certain.

    `number` is its mean among a report's numbers.
    """

    title: str
    column: str
    number: str
    sign: int = 1


#: EU is a falling function of alpha_0: their ranks, and so their correlations, are the same.
UNCERTAINTIES = (
    Uncertainty("1 - confidence", "confidence", "confidence", -1), Uncertainty("entropy", "entropy", "entropy"),
    Uncertainty("AU", "au", "au"), Uncertainty("EU", "log_eu", "log10_eu"),
)  # fmt: skip


class Correlations:
    """Rank correlations of uncertainties, of the samples that a report compares, with intervals from resampled samples."""

    def __init__(self, results: Results, resamples: int = 1000):
        self.results, self.read, self.resamples = results, readers(results), resamples
        self._shared: dict[str, Resamples] = {}

    def with_strength(self, model: str, dataset: str, course: Course) -> Replicates | None:
        """Of each uncertainty with the strength of a course; None where a step is missing or has other samples."""
        cells = [self.results.get(model, dataset, *step) for step in course.steps]
        rows = [self._reader(cell)(COLUMNS) for cell in cells if cell is not None and usable(cell.meta)]
        if len(rows) < len(course.steps) or any(not np.array_equal(r["id"], rows[0]["id"]) for r in rows):
            return None
        return self._of(dataset, rows, np.array(course.strengths)[:, None])

    def with_wrong(self, cell: Measured) -> Replicates:
        """Of each uncertainty with being wrong."""
        records = self._reader(cell)(COLUMNS)
        return self._of(cell.dataset, [records], ~np.asarray(records["correct"], bool)[None])

    def with_unknown(self, known: Measured, unknown: Measured) -> Replicates:
        """Of each uncertainty with being of no known class, over both cells' images; the sides are resampled independently."""
        sides = [self._reader(cell)(COLUMNS) for cell in (known, unknown)]
        parts = [Resamples.of(records["id"], self.resamples) for records in sides]
        level = np.repeat([0, 1], [part.n for part in parts])[None]
        scores = {u.title: np.concatenate([_readings(records, u) for records in sides])[None] for u in UNCERTAINTIES}
        counts = np.concatenate([np.concatenate(list(part.chunks())) for part in parts], axis=1)
        samples, smaller = tuple((part.seed, part.key, part.n) for part in parts), min(part.n for part in parts)
        return _correlated(scores, level, np.array_split(counts, max(len(counts) // 100, 1)), smaller, samples)

    def _reader(self, cell: Measured) -> Reader:
        return self.read[cell.id]

    def _of(self, dataset: str, rows: Sequence[Records], levels: np.ndarray) -> Replicates:
        ids = rows[0]["id"]
        shared = self._shared.setdefault(dataset, Resamples.of(ids, self.resamples))
        if shared.n != len(ids):
            shared = Resamples.of(ids, self.resamples)
        stacked = {u.title: np.stack([_readings(records, u) for records in rows]) for u in UNCERTAINTIES}
        return _correlated(stacked, levels, shared.chunks(), shared.n, ((shared.seed, shared.key, shared.n),))


def _readings(records: Records, uncertainty: Uncertainty) -> np.ndarray:
    """An uncertainty of every sample (N,), larger for what is less certain."""
    return uncertainty.sign * np.asarray(records[uncertainty.column], np.float64)


def _correlated(
    scores: Mapping[str, np.ndarray], levels: np.ndarray, counts: Iterable[np.ndarray], n: int, samples: tuple[Samples, ...]
) -> Replicates:
    """Rank correlations of scores (S, N) with levels, and their draws under weights (R, N), as wide as n samples ask for."""
    rules = {title: RankCorrelation(x, levels) for title, x in scores.items() if not np.isnan(x).any()}
    values = {title: float(rule(np.ones((1, scores[title].shape[1])))[0]) for title, rule in rules.items()}
    parts = [{title: rule(weights) for title, rule in rules.items()} for weights in counts]
    draws = {title: np.concatenate([part[title] for part in parts]) for title in rules}
    return Replicates(values, {title: stretched(x, n).clip(-1, 1) for title, x in draws.items()}, {}, samples=samples)
