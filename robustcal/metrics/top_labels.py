"""Multi-label tasks: micro precision, recall and F1 of the k highest labels."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .logits import matrix, single_label
from .multilabel import READ, positive_matrix
from .weighted import Means

NAMES = ("precision_at_{k}", "recall_at_{k}", "f1_at_{k}")


@register.metric(
    direction={name.format(k=k): "higher" for k in (1, 3, 5) for name in NAMES}, unit="fraction", columns=READ
)
def top_labels(records: Records, *, k: int = 3) -> Means | dict[str, float]:
    """precision_at_k, recall_at_k, f1_at_k, micro: the k largest logits of every image count as its predicted labels.

    Hits, predictions and positives are summed over all images before dividing. Nothing for single-label tasks.
    """
    if k < 1:
        raise UserError(f"top-labels: k={k} must be 1 or more")
    if single_label(records):
        return {}
    truth = positive_matrix(records)
    chosen = matrix(records["top_classes"])[:, :k].astype(np.int64)
    hits = np.take_along_axis(truth, chosen, axis=1).sum(1)

    def combine(means: np.ndarray) -> dict[str, np.ndarray]:
        hit, positive = means[..., 0], means[..., 1]
        precision, recall = hit / chosen.shape[1], hit / np.where(positive > 0, positive, np.nan)
        f1 = 2 * hit / (chosen.shape[1] + positive)
        return {name.format(k=k): value for name, value in zip(NAMES, (precision, recall, f1))}

    return Means(np.stack([hits, truth.sum(1)], axis=1).astype(np.float64), combine)
