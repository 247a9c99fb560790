"""Telling images of known classes from unknown ones by a score of the model: AUROC, AUPR and FPR at 95 % TPR."""

from __future__ import annotations

import numpy as np

from ..types import Records
from .detection import auroc
from .logits import logits_of
from .sorting import Sorted
from .weighted import Weighted

#: Columns of the records that the scores need.
COLUMNS = ("id", "label", "confidence", "entropy", "dirichlet_confidence", "log_alpha0", "log_eu", "top_logits", "top_classes",
           "rest_logit")  # fmt: skip
#: Score -> its name in tables, in their order.
SCORES = {
    "msp": "max softmax", "entropy": "entropy", "energy": "energy", "max_logit": "max cosine", "mcm": "MCM (τ = 0.07)",
    "alpha0": "log α₀, EU",
}  # fmt: skip
#: Measure -> (its name in tables, the better direction).
MEASURES = {"auroc": ("AUROC", "higher"), "aupr": ("AUPR", "higher"), "fpr95": ("FPR at 95 % TPR", "lower")}


def scores_of(records: Records) -> dict[str, np.ndarray]:
    """Score -> (N,), larger for what looks more like a known class; without those that the records do not have.

    - msp: largest softmax probability (Hendrycks and Gimpel 2017); entropy: minus the entropy of the softmax;
    - energy: log-sum-exp of the logits (Liu et al. 2020, at temperature 1), which is minus the energy;
    - max_logit: the largest logit (Hendrycks et al. 2022); within one model it ranks as the largest cosine does;
    - mcm: largest softmax of the cosines over 0.07, the maximum concept matching of Ming et al. (2022) at that temperature,
      where they take 1;
    - alpha0: ln alpha_0, of which EU = C / (alpha_0 + C) is a falling function, so that they rank alike.
    """
    logits = logits_of(records)
    found = {
        "msp": np.asarray(records["confidence"], np.float64), "entropy": -np.asarray(records["entropy"], np.float64),
        "energy": logits.normaliser(), "max_logit": logits.top[:, 0],
        "mcm": np.asarray(records["dirichlet_confidence"], np.float64), "alpha0": np.asarray(records["log_alpha0"], np.float64),
    }  # fmt: skip
    return {name: score for name, score in found.items() if not np.isnan(score).any()}


def separation(known: Records, unknown: Records) -> Weighted:
    """``auroc_SCORE``, ``aupr_SCORE`` and ``fpr95_SCORE`` of every score that both have; the known images are positive.

    AUPR is the average precision, without interpolation; FPR is the share of unknown images taken for known at the highest
    threshold that takes 95 % of the known ones. Ties fall on one side together. nan where one side is empty. Weights are
    those of the known samples, then of the unknown ones.
    """
    one, other = scores_of(known), scores_of(unknown)
    count, total = len(known["id"]), len(known["id"]) + len(unknown["id"])
    groups = {name: Sorted(np.concatenate([one[name], other[name]])) for name in SCORES if name in one and name in other}

    def evaluate(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = {}
        for name, group in groups.items():
            ordered = group.gather(weights)
            everything, right = group.sums(ordered), group.sums(ordered * (group.order < count).astype(ordered.dtype))
            values[f"auroc_{name}"] = auroc(everything, right)
            values[f"aupr_{name}"], values[f"fpr95_{name}"] = precision_and_false_alarms(everything, right)
        return values

    return Weighted(evaluate, total)


def precision_and_false_alarms(count: np.ndarray, positive: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (R,), and the false positive rate (R,) where the true positive rate first reaches `level`.

    Args:
        count, positive: sums of weights (R, G) over ascending groups of equal scores, of all and of the positive samples.
    """
    hits, taken = positive[:, ::-1].cumsum(1), count[:, ::-1].cumsum(1)
    if not count.shape[1]:
        return (np.full(len(count), np.nan),) * 2
    positives, negatives = hits[:, -1:], taken[:, -1:] - hits[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(taken > 0, hits / taken, 0)
        average = (positive[:, ::-1] * precision).sum(1) / positives[:, 0]
        first = (hits / positives >= level).argmax(1)
        alarms = ((taken - hits) / negatives)[np.arange(len(count)), first]
    both = (positives[:, 0] > 0) & (negatives[:, 0] > 0)
    return np.where(both, average, np.nan), np.where(both, alarms, np.nan)
