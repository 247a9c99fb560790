"""Multi-label tasks: calibration error of every class probability."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .classwise import class_errors
from .logits import Logits, logits_of, single_label
from .multilabel import READ
from .weighted import Means

READINGS = ("sigmoid", "centred", "softmax")


@register.metric(direction={"label_ece": "lower"}, unit="fraction", columns=READ)
def label_calibration(records: Records, *, bins: int = 15, reading: str = "softmax") -> Means | dict[str, float]:
    """label_ece: mean over classes of the ECE of each class's probability against its presence.

    `reading`: "softmax" at the model's own scale; "sigmoid" of the logit, for models trained with it; or "centred",
    the sigmoid of the logit minus the mean of the sample's logits: that of a contrastive model's raw logit is near 1
    for every class.
    Nothing for single-label tasks.
    """
    if reading not in READINGS:
        raise UserError(f"reading '{reading}' is unknown; there are: {', '.join(READINGS)}")
    if single_label(records):
        return {}
    logits = logits_of(records)
    if logits.hidden and reading != "softmax":
        raise UserError(f"reading '{reading}' needs all logits, but {logits.hidden} classes were not stored")
    return class_errors(logits, padded(records["labels"]), label_scores(logits, reading), bins, "label_ece")


def label_scores(logits: Logits, reading: str) -> np.ndarray:
    """Probability (N, K) of each stored class under a reading."""
    if reading == "softmax":
        return logits.probabilities()
    centre = logits.top.mean(1, keepdims=True) if reading == "centred" else 0.0
    return 1 / (1 + np.exp(np.clip(centre - logits.top, -700, 700)))


def padded(lists: np.ndarray) -> np.ndarray:
    """Lists of classes as one matrix (N, P), filled up with -1."""
    lists = [np.asarray(row, dtype=np.int64).reshape(-1) for row in lists]
    filled = np.full((len(lists), max(map(len, lists), default=0)), -1)
    for row, classes in zip(filled, lists):
        row[: len(classes)] = classes
    return filled
