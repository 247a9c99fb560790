"""Selective prediction: risk-coverage curve, its area, and accuracy when the least certain are left out."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .sorting import Sorted
from .weighted import Weighted

#: What a sample can be kept for: column and sign (largest first).
RANKINGS = {"confidence": ("confidence", 1), "dirichlet": ("dirichlet_confidence", 1), "entropy": ("entropy", -1),
            "au": ("au", -1), "eu": ("log_eu", -1)}  # fmt: skip


@register.metric(
    direction={"aurc": "lower", "aurc_excess": "lower", "accuracy_at_80": "higher"}, unit="fraction",
    columns=("correct", "confidence", "dirichlet_confidence", "entropy", "au", "log_eu"),
)  # fmt: skip
def selective(records: Records, *, by: str = "confidence") -> Weighted | dict[str, float]:
    """Keeping the samples that `by` (confidence, dirichlet, entropy, au or eu) trusts most. Returns:

    - aurc: mean error rate over all coverages 1/N ... N/N (Geifman and El-Yaniv, 2017);
    - aurc_excess: aurc minus that of a ranking that puts every error last;
    - accuracy_at_80: accuracy of the most trusted 80 %.

    Samples that tie are taken in random order: the values are expectations over it. Nothing is returned where the
    ranking has nan (a classifier without cosines has no dirichlet, au or eu).
    """
    groups, errors, known = _ranked(records, by)
    if not known:
        return {}
    if not len(errors):
        return Weighted(lambda weights: {name: np.full(len(weights), np.nan) for name in SELECTIVE}, 0)
    coarse = groups.coarse()
    return Weighted(lambda w: _values(groups, errors, w), len(errors), lambda w: _values(coarse, errors, w), shares=True)


def _values(groups: Sorted, errors: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    ordered = groups.gather(weights)
    count, wrong = groups.sums(ordered), groups.sums(ordered * errors[groups.order].astype(ordered.dtype))
    n, failed = count.sum(1), wrong.sum(1)
    area, kept = _area(count, wrong) / n, 0.8 * n
    oracle = _area(np.stack([n - failed, failed], 1), np.stack([0 * n, failed], 1)) / n
    best = 1 - _errors_among(count, wrong, kept) / kept
    return {"aurc": area, "aurc_excess": area - oracle, "accuracy_at_80": best}


SELECTIVE = ("aurc", "aurc_excess", "accuracy_at_80")


def risk_coverage(records: Records, by: str = "confidence") -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve: coverage (G,), ascending up to 1, and error rate (G,) among the samples kept.

    One point for each distinct value of the ranking.
    """
    groups, errors, _ = _ranked(records, by)
    ones = np.ones((1, len(errors)))
    kept = groups.group_sums(ones)[0].cumsum()
    return kept / len(errors), groups.group_sums(ones, errors)[0].cumsum() / kept


def _ranked(records: Records, by: str) -> tuple[Sorted, np.ndarray, bool]:
    """Samples sorted from the most trusted to the least, their errors (N,) 0/1; whether the ranking has no nan."""
    if by not in RANKINGS:
        raise UserError(f"ranking '{by}' is unknown; there are: {', '.join(RANKINGS)}")
    column, sign = RANKINGS[by]
    score = -sign * np.asarray(records[column], np.float64)
    return Sorted(score), 1.0 - np.asarray(records["correct"], np.float64), not np.isnan(score).any()


def _area(count: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Sum over positions 1 ... n of the expected error rate up to there; `count` (R, G) are whole numbers.

    Within a group the errors come at their mean rate e: the error rate at its j-th position is (W + j e) / (M + j),
    with M samples and W errors before it, whose sum over j is e c + (W - e M) (H(M + c) - H(M)), H harmonic numbers.
    """
    after = count.cumsum(1)
    before, wrong_before = after - count, wrong.cumsum(1) - wrong
    rate = wrong / np.where(count > 0, count, 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, round(after[:, -1].max()) + 1))])
    spread = harmonic[np.rint(after).astype(np.int64)] - harmonic[np.rint(before).astype(np.int64)]
    return np.asarray((wrong + (wrong_before - rate * before) * spread).sum(1))


def _errors_among(count: np.ndarray, wrong: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Expected errors (R,) among the first `kept` (R,) samples; a group cut in two gives its share."""
    after = count.cumsum(1)
    inside = np.clip((kept[:, None] - (after - count)) / np.where(count > 0, count, 1), 0, 1)
    return np.asarray((wrong * inside).sum(1))
