"""Shares of samples, such as accuracy: score limits of their averages, and exact comparisons of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, expit, gammaincinv, logit, ndtr, ndtri

from .resample import is_dense

#: What tells the samples of cells apart: seed and key of their resamples, and how many they are.
Samples = tuple[int, str, int]


#: Means of columns, in (0, 1), at which a value that is one of them, or the ratio of two, shows it.
PROBES = 2
#: Most columns among which ratios are looked for.
WIDEST = 64
#: Most hits whose lower limit is that of a Poisson mean.
FEW = 3


class Share(NamedTuple):
    """A share of samples: whether each is a hit (M,), and whether those are all samples of the cell."""

    hits: np.ndarray
    of_all: bool = True


def shares_of(value: Mapping[str, float]) -> dict[str, Share]:
    """The values that are the mean of one column of 0 and 1, or that mean over another column's.

    A metric says only how its values follow from means of columns; so they are asked at means that no other rule gives.
    """
    if not is_dense(value) or not value.n:
        return {}
    columns, found = value.columns, {}
    probes = np.random.default_rng(0).uniform(0.2, 0.8, (PROBES, columns.shape[1]))
    with np.errstate(all="ignore"):
        asked = value.combine(probes)
    ratios = probes[:, :, None] / probes[:, None] if columns.shape[1] <= WIDEST else np.empty((PROBES, 0, 0))
    for name, values in asked.items():
        if np.shape(values) != (PROBES,):
            continue
        for top in np.flatnonzero((probes == values[:, None]).all(0)):
            if _is_binary(columns[:, top]):
                found[name] = Share(columns[:, top] == 1)
        for top, below in np.argwhere(np.isclose(ratios, values[:, None, None], rtol=1e-12, atol=0).all(0)):
            hits, known = columns[:, top], columns[:, below]
            if name not in found and top != below and _is_part(hits, known):
                found[name] = Share(hits[known == 1] == 1, of_all=False)
    return found


def _is_part(hits: np.ndarray, known: np.ndarray) -> bool:
    """Whether hits are counted among known samples."""
    return _is_binary(hits) and _is_binary(known) and bool(known.any() and (hits <= known).all())


def _is_binary(column: np.ndarray) -> bool:
    return bool(((column == 0) | (column == 1)).all())


def average_limits(outcomes: Sequence[np.ndarray], samples: Sequence[Samples], level: float = 0.95) -> tuple[float, float]:
    """Score limits of the unweighted mean of several shares; for one share Wilson's (1927).

    Of one share with at most three hits, or misses, that end is the exact one-sided limit of a Poisson mean where it is
    lower: Wilson's own then lies above the truth too often (Brown, Cai and DasGupta, 2001, section 4.1.1).

    The limits are the means that lie as many of their *own* standard errors from the mean observed as the level allows.
    Under such a mean the shares are those observed, (hits + 1/2) / (n + 1), all moved by one amount of log odds. Shares
    of the same samples are correlated as their outcomes are, fully where one does not vary; others are independent.
    """
    sizes = np.array([len(hit) for hit in outcomes])
    hits = np.array([hit.sum() for hit in outcomes])
    observed, start, z = float((hits / sizes).mean()), logit((hits + 0.5) / (sizes + 1)), -ndtri((1 - level) / 2)
    related = correlations(outcomes, samples)

    def distance(shift: float, side: int) -> float:
        errors = np.sqrt(expit(start + shift) * expit(-start - shift) / sizes)
        spread = z * np.sqrt(max(errors @ related @ errors, 0)) / len(sizes)
        return float(expit(start + shift).mean() - observed + side * spread)

    def limit(side: int) -> float:
        return float(expit(start + brentq(distance, -40, 40, (side,))).mean())

    low, high = 0.0 if observed == 0 else limit(1), 1.0 if observed == 1 else limit(-1)
    if len(outcomes) > 1:
        return low, high
    few, missed = (float(gammaincinv(k, 1 - level)) / sizes[0] if 0 < k <= FEW else 1.0 for k in (hits[0], sizes[0] - hits[0]))
    return min(low, few), max(high, 1 - missed)


def correlations(outcomes: Sequence[np.ndarray], samples: Sequence[Samples]) -> np.ndarray:
    """Correlations (K, K) of shares: those of their outcomes on the same samples (1 where one does not vary), else 0."""
    related = np.eye(len(outcomes))
    for i, j in combinations(range(len(outcomes)), 2):
        if samples[i] == samples[j]:
            a, b = (hit - hit.mean() for hit in (outcomes[i], outcomes[j]))
            scale = np.sqrt((a @ a) * (b @ b))
            related[i, j] = related[j, i] = a @ b / scale if scale > 0 else 1.0
    return related


def sign_test(one: Sequence[np.ndarray], other: Sequence[np.ndarray], samples: Sequence[Samples]) -> float:
    """Two-sided p-value of "equally right on average" for two models on the same samples of several cells.

    Given the samples on which they differ, each is as likely to speak for either model. On one cell, and on several of
    equal size, this is the exact McNemar test. Where samples weigh differently (sets of other sizes, one sample in
    several cells) the sum of the signed weights is taken as normal, less the largest weight for continuity.
    """
    scores: dict[Samples, np.ndarray] = {}
    for a, b, key in zip(one, other, samples):
        scores[key] = scores.get(key, 0) + (b.astype(np.int8) - a.astype(np.int8)) / len(a)
    found = np.concatenate(list(scores.values()))
    found = found[np.abs(found) > 1e-12]
    if not len(found):
        return 1.0
    weights = np.abs(found)
    if np.isclose(weights.max(), weights.min(), rtol=1e-9):
        fewer = min((found > 0).sum(), (found < 0).sum())
        return min(1.0, 2 * float(bdtr(fewer, len(found), 0.5)))
    distance = max(abs(found.sum()) - weights.max(), 0.0)
    return float(2 * ndtr(-distance / np.sqrt((found**2).sum())))


def joined(cells: Sequence[Mapping[str, tuple[np.ndarray, ...]]]) -> dict[str, tuple[np.ndarray, ...]]:
    """The outcomes of several cells, for names that all of them have."""
    return {name: sum((cell[name] for cell in cells), ()) for name in cells[0] if all(name in cell for cell in cells)}
