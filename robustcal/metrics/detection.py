"""Telling attacked images from clean ones by the model's own uncertainty: AUROC."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .sorting import Sorted
from .weighted import Weighted

#: Value -> column and the sign that makes "larger" mean "more likely attacked".
DETECTORS = {"auroc_confidence": ("confidence", -1), "auroc_entropy": ("entropy", 1), "auroc_au": ("au", 1),
             "auroc_eu": ("log_eu", 1)}  # fmt: skip


@register.metric(
    direction=dict.fromkeys(DETECTORS, "higher"), unit="fraction",
    columns=("confidence", "entropy", "au", "log_eu"),
)  # fmt: skip
def detection(records: Records, clean: Records) -> Weighted:
    """Probability that an attacked image looks less certain than a clean one: 0.5 is chance.

    auroc_confidence, auroc_entropy, auroc_au, auroc_eu: by low confidence or by high entropy, aleatoric or epistemic
    uncertainty. Below 0.5 the attack suppresses the uncertainty. A sample and its attacked twin are resampled
    together. Scores with nan (au and eu of a classifier without cosines) are left out.
    """
    n = len(records["entropy"])
    if n == 0:
        return Weighted(lambda weights: {name: np.full(len(weights), np.nan) for name in DETECTORS}, 0)
    scores = {
        name: sign * np.concatenate([np.asarray(rows[column], np.float64) for rows in (clean, records)])
        for name, (column, sign) in DETECTORS.items()
    }
    groups = {name: Sorted(score) for name, score in scores.items() if not np.isnan(score).any()}
    coarse = {name: group.coarse() for name, group in groups.items()}
    return Weighted(lambda weights: _values(groups, weights), n, lambda weights: _values(coarse, weights), shares=True)


def _values(groups: dict[str, Sorted], weights: np.ndarray) -> dict[str, np.ndarray]:
    values = {}
    for name, group in groups.items():
        ordered = group.gather(weights)
        attacked = (group.order >= weights.shape[1]).astype(ordered.dtype)
        values[name] = auroc(group.sums(ordered), group.sums(ordered * attacked))
    return values


def auroc(count: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (R,) from sums (R, G) of weights over ascending score groups; ties count one half.

    nan where one of the two classes is missing.
    """
    negative = count - positive
    below = negative.cumsum(1) - negative
    pairs = positive.sum(1) * negative.sum(1)
    return np.asarray((positive * (below + negative / 2)).sum(1) / np.where(pairs > 0, pairs, np.nan))
