"""Proper scores: negative log-likelihood and Brier score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..registry import register
from ..types import Records
from .logits import COLUMNS as LOGITS
from .logits import logits_of, single_label
from .weighted import Means

#: float32 softmax underflows below this; the logits say how far.
SMALLEST = float(np.finfo(np.float32).tiny)
#: A column that `with_loss` adds: -ln p(label), nats, whatever the size of p.
LOSS = "label_loss"


@register.metric(
    direction={"nll": "lower", "brier": "lower"}, unit={"nll": "nats", "brier": ""}, least={"nll": 0, "brier": 0},
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
    """-ln p(label) per sample (N,), nats; from the stored logits where the probability has underflowed to 0.

    Records with neither logits nor the column of `with_loss` have the largest loss that a float32 can tell there.
    """
    if LOSS in records:
        return np.asarray(records[LOSS], dtype=np.float64)
    probability = np.asarray(records["label_probability"], dtype=np.float64)
    loss = -np.log(np.maximum(probability, SMALLEST))
    lost = np.flatnonzero(probability <= SMALLEST)
    if len(lost) and all(name in records for name in LOGITS):
        names = [name for name in (*LOGITS, "log_eu", "log_alpha0") if name in records]
        some = {name: np.asarray(records[name])[lost] for name in names}
        logits = logits_of(some)
        loss[lost] = logits.normaliser() - logits.of(some["label"])
    return loss


def with_loss(records: Records, read: Callable[[Sequence[str]], Records]) -> Records:
    """The records of a single-label cell with the column `LOSS`, so that its logits need not be kept for the likelihood.

    Args:
        read: columns -> records of the same samples; asked for the logits only where a probability has underflowed.
    """
    if not single_label(records):
        return records
    lost = (np.asarray(records["label_probability"]) <= SMALLEST).any()
    logits = read(LOGITS) if lost and any(name not in records for name in LOGITS) else {}
    return {**records, LOSS: negative_log_likelihood({**records, **logits})}
