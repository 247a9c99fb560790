"""Proper scores: negative log-likelihood and Brier score."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records
from .logits import COLUMNS as LOGITS, logits_of, single_label
from .weighted import Means

#: float32 softmax underflows below this; the logits say how far.
SMALLEST = float(np.finfo(np.float32).tiny)


@register.metric(
    direction={"nll": "lower", "brier": "lower"}, unit={"nll": "nats", "brier": ""},
    columns=("label", "label_probability", "brier"),
)  # fmt: skip
def scores(records: Records) -> Means:
    """nll: mean of -ln p(label), nats; brier: mean squared distance from the one-hot label, in [0, 2].

    Single-label tasks only: no names are returned where there is no one label.
    """
    if not single_label(records):
        return Means(np.zeros((len(records["label"]), 0)), lambda means: {})
    columns = np.stack([negative_log_likelihood(records), np.asarray(records["brier"], dtype=np.float64)], axis=1)
    return Means(columns, lambda means: {"nll": means[..., 0], "brier": means[..., 1]})


def negative_log_likelihood(records: Records) -> np.ndarray:
    """-ln p(label) per sample (N,), nats; from the stored logits where the probability has underflowed to 0."""
    probability = np.asarray(records["label_probability"], dtype=np.float64)
    loss = -np.log(np.maximum(probability, SMALLEST))
    lost = np.flatnonzero(probability <= SMALLEST)
    if len(lost) and all(name in records for name in LOGITS):
        names = [name for name in (*LOGITS, "log_eu", "log_alpha0") if name in records]
        some = {name: np.asarray(records[name])[lost] for name in names}
        logits = logits_of(some)
        loss[lost] = logits.normaliser() - logits.of(some["label"])
    return loss
