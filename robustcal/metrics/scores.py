"""Proper scores: negative log-likelihood and Brier score."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .weighted import Means

#: float32 softmax underflows below this; the logits say how far.
SMALLEST = float(np.finfo(np.float32).tiny)


@register.metric(direction={"nll": "lower", "brier": "lower"}, unit={"nll": "nats", "brier": ""})
def scores(records: Records) -> Means:
    """nll: mean of -ln p(label), nats; brier: mean squared distance from the one-hot label, in [0, 2].

    Single-label tasks only: no names are returned where there is no one label.
    """
    if not single_label(records):
        return Means(np.zeros((len(records["label"]), 0)), lambda means: {})
    columns = np.stack([negative_log_likelihood(records), np.asarray(records["brier"], dtype=np.float64)], axis=1)
    return Means(columns, lambda means: {"nll": means[..., 0], "brier": means[..., 1]})


def single_label(records: Records) -> bool:
    """Whether every sample has one label (multi-label records have label -1)."""
    return bool((np.asarray(records["label"]) >= 0).all())


def negative_log_likelihood(records: Records) -> np.ndarray:
    """-ln p(label) per sample (N,), nats; from the stored logits where the probability has underflowed to 0."""
    probability = np.asarray(records["label_probability"], dtype=np.float64)
    loss = -np.log(np.maximum(probability, SMALLEST))
    lost = np.flatnonzero(probability <= SMALLEST)
    if len(lost) and "top_logits" in records:
        loss[lost] = _from_logits(records, lost)
    return loss


def _from_logits(records: Records, rows: np.ndarray) -> np.ndarray:
    """-ln p(label) of some rows from their logits; a label outside the stored ones counts as their smallest."""
    logits = matrix(records["top_logits"])[rows].astype(np.float64)
    classes = matrix(records["top_classes"])[rows]
    rest = np.asarray(records["rest_logit"], dtype=np.float64)[rows]
    here = classes == np.asarray(records["label"])[rows][:, None]
    label = np.where(here.any(1), (np.where(here, logits, 0)).sum(1), logits[:, -1])
    return np.logaddexp(np.logaddexp.reduce(logits, axis=1), rest) - label


def matrix(column: np.ndarray) -> np.ndarray:
    """A list column as (N, K), whether it is stored as a matrix or as an array of rows."""
    column = np.asarray(column)
    return np.stack(list(column)) if column.dtype == object and len(column) else column
