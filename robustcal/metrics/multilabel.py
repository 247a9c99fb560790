"""Multi-label tasks: mean average precision over the whole dataset."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .logits import COLUMNS, Logits, logits_of, single_label
from .sorting import Sorted
from .weighted import Weighted

READ = (*COLUMNS, "labels", "log_eu", "log_alpha0")


@register.metric(direction={"map": "higher"}, unit="fraction", columns=READ)
def multilabel(records: Records) -> Weighted | dict[str, float]:
    """map: mean over the classes present of their average precision, ranked over the whole dataset.

    The published evaluation of this field averages over batches of 512 images, which differs for rare classes.
    Nothing is returned for single-label tasks.
    """
    if single_label(records):
        return {}
    scores, truth = score_matrix(logits_of(records)), positive_matrix(records)
    present = [int(k) for k in np.flatnonzero(truth.any(0))]
    groups = {k: Sorted(-scores[:, k]) for k in present}
    coarse = {k: group.coarse() for k, group in groups.items()}
    return Weighted(lambda w: _mean(groups, truth, w), len(scores), lambda w: _mean(coarse, truth, w), shares=True)


def _mean(groups: dict[int, Sorted], truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean average precision (R,) over the classes that have positives under these weights."""
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for k, group in groups.items():
        each = average_precision(group.group_sums(weights), group.group_sums(weights, truth[:, k]))
        total, known = total + np.nan_to_num(each), known + np.isfinite(each)
    return {"map": total / np.where(known > 0, known, np.nan)}


def average_precision(count: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Average precision (R,) from sums (R, G) of weights over groups of descending score; nan without positives.

    The sum over thresholds of (recall step) x precision; equal scores are one threshold.
    """
    total = positive.sum(1)
    taken = count.cumsum(1)
    precision = positive.cumsum(1) / np.where(taken > 0, taken, 1)
    return np.asarray((positive * precision).sum(1) / np.where(total > 0, total, np.nan))


def score_matrix(logits: Logits) -> np.ndarray:
    """Logits (N, C) in class order; classes that are not stored get their sample's common rest."""
    scores = np.repeat(logits.each_hidden[:, None], logits.classes_in_all, axis=1)
    np.put_along_axis(scores, logits.classes.astype(np.int64), logits.top, axis=1)
    return scores


def positive_matrix(records: Records) -> np.ndarray:
    """Multi-hot labels (N, C) from the column `labels`, which lists the positive classes of each sample."""
    if "labels" not in records:
        raise UserError("the records have no column 'labels', which multi-label metrics need")
    lists = [np.asarray(row, dtype=np.int64).reshape(-1) for row in records["labels"]]
    truth = np.zeros((len(lists), logits_of(records).classes_in_all), dtype=bool)
    for row, classes in zip(truth, lists):
        row[classes] = True
    return truth
