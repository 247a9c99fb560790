"""Class-wise calibration error: every class probability is judged, not only the largest."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, hstack

from ..registry import register
from ..types import Records
from .bins import bin_edges, bin_index
from .debias import truth_draws
from .logits import COLUMNS, Logits, logits_of, single_label
from .weighted import Means


@register.metric(
    direction={"classwise_ece": "lower"}, unit="fraction", columns=(*COLUMNS, "log_eu", "log_alpha0")
)  # fmt: skip
def classwise(records: Records, *, bins: int = 15) -> Means | dict[str, float]:
    """classwise_ece: mean over classes k of the ECE of p_k against "the label is k".

    Nixon et al. (2019), Kull et al. (2019). Where only the largest logits are stored, the other classes share the
    remaining probability equally.
    Single-label tasks only (`multilabel` has its own).
    """
    if not single_label(records):
        return {}
    logits = logits_of(records)
    return class_errors(logits, np.asarray(records["label"])[:, None], logits.probabilities(), bins, "classwise_ece")


def class_errors(logits: Logits, positives: np.ndarray, scores: np.ndarray, bins: int, name: str) -> Means:
    """Mean over classes of their ECE.

    Args:
        positives: (N, P) classes that are true of each sample; -1 fills up.
        scores: (N, K) probabilities of the stored classes, in the order of ``logits.classes``.
    """
    n, stored = scores.shape
    count = logits.classes_in_all
    cell = logits.classes.astype(np.int32) * bins + bin_index(scores, bin_edges(scores, bins))
    rows = np.repeat(np.arange(n, dtype=np.int32), stored)
    shape = (n, count * bins)
    columns = csr_matrix((scores.ravel(), (rows, cell.ravel())), shape) - _hits(logits, positives, cell, bins, count)
    # The probability left over belongs to the first bin of every class that is not stored: all classes get it, in a
    # column of its own, and those that are stored give it back.
    each = np.maximum(1 - scores.sum(1), 0) / logits.hidden if logits.hidden else np.zeros(n)
    back = csr_matrix((np.repeat(each, stored), (rows, logits.classes.ravel().astype(np.int32) * bins)), shape)
    columns = hstack([columns - back, csr_matrix(each[:, None])], format="csr")

    def gaps(means: np.ndarray) -> np.ndarray:
        found = np.array(means[..., :-1])
        found[..., ::bins] += means[..., -1:]
        return found

    def norm(gap: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(gap).sum(-1) / max(count, 1))

    def rule(means: np.ndarray, resampled: np.ndarray) -> np.ndarray:
        whole, moved = gaps(means), gaps(resampled)
        used = np.flatnonzero(whole != 0)
        return truth_draws(whole[used], moved[:, used], float(norm(whole)), norm)

    return Means(columns, lambda means: {name: norm(gaps(means))}, {name: rule})


def _hits(logits: Logits, positives: np.ndarray, cell: np.ndarray, bins: int, count: int) -> csr_matrix:
    """One where a true class lies: in the bin of its score, or in the first bin if it is not stored."""
    n = len(positives)
    row, column = np.nonzero(positives >= 0)
    label = positives[row, column].astype(np.int64)
    where = label * bins
    for start in range(0, len(row), 50_000):  # (positives, K) comparisons, in pieces
        part = slice(start, start + 50_000)
        match = logits.classes[row[part]] == label[part, None]
        found = match.any(1)
        where[part] = np.where(found, cell[row[part], match.argmax(1)], where[part])
    return csr_matrix((np.ones(len(row)), (row, where)), (n, count * bins))
