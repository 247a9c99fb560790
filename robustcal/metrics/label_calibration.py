"""Multi-label tasks: calibration error of every class probability."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .classwise import class_errors
from .logits import Logits, logits_of, single_label
from .multilabel import READ
from .weighted import Means

READINGS = ("centred", "sigmoid", "softmax")


@register.metric(direction={"label_ece": "lower"}, unit="fraction", columns=READ)
def label_calibration(records: Records, *, bins: int = 15, reading: str = "centred") -> Means | dict[str, float]:
    """label_ece: mean over classes of the ECE of each class's probability against its presence.

    `reading`: "centred", the sigmoid of the logit minus the mean of the sample's logits, as in the attacks' binary
    cross-entropy: that of a contrastive model's raw logit is near 1 for every class; "sigmoid" of the logit itself, for
    models trained with it; "softmax" at the model's own scale, whose probabilities sum to one over all classes.
    Nothing for single-label tasks, nor for a sigmoid of which some logits were not stored.
    """
    if reading not in READINGS:
        raise UserError(f"reading '{reading}' is unknown; there are: {', '.join(READINGS)}")
    if single_label(records):
        return {}
    logits = logits_of(records)
    if logits.hidden and reading != "softmax":
        return {}
    return class_errors(logits, padded(records["labels"]), label_scores(logits, reading), bins, "label_ece")


def label_scores(logits: Logits, reading: str) -> np.ndarray:
    """Probability (N, K) of each stored class under a reading."""
    if reading == "softmax":
        return logits.probabilities()
    centre = logits.top.mean(1, keepdims=True) if reading == "centred" else 0.0
    return 1 / (1 + np.exp(np.clip(centre - logits.top, -700, 700)))


def padded(lists: np.ndarray) -> np.ndarray:
    """Lists of classes as one matrix (N, P), filled up with -1."""
    rows = [np.asarray(row, dtype=np.int64).reshape(-1) for row in lists]
    filled = np.full((len(rows), max(map(len, rows), default=0)), -1)
    for row, classes in zip(filled, rows):
        row[: len(classes)] = classes
    return filled
