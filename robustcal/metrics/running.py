"""Calibration in a loop of one's own: batches of logits in, the same numbers as from the records of a sweep out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import log_softmax

from ..registry import metrics
from ..types import UserError
from .scores import LOSS, SMALLEST


class Running:
    """Metrics of a classifier over batches: `update`, `compute`, `reset`, as torchmetrics has them.

    Keeps a few numbers of each sample, not its logits: every value is that of the metric itself on such records, exactly.

    >>> running = Running("calibration:bins=15", "accuracy")
    >>> running.update([[2.0, 0.0], [0.5, 1.5]], [0, 0])
    >>> round(running.compute()["accuracy"], 2)
    0.5

    Args:
        specs: metrics of `robustcal ls metrics` that need no more than the columns in `COLUMNS`; default: calibration,
            accuracy and scores.
    """

    #: Columns of a record that logits and labels give.
    COLUMNS = ("label", "prediction", "correct", "confidence", "label_probability", "entropy", "brier")

    def __init__(self, *specs: str):
        self.specs = specs or ("calibration", "accuracy", "scores")
        for spec in self.specs:
            needs = metrics.get(metrics.spec(spec).name).meta.get("columns", ())
            lacking = [name for name in needs if name not in (*self.COLUMNS, "dirichlet_confidence")]
            if lacking:
                raise UserError(f"metric '{spec}' needs {', '.join(lacking)} of each sample; logits in a loop do not give it")
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._batches: list[dict[str, np.ndarray]] = []

    def update(self, logits: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            logits: (N, C), at the scale whose softmax is the confidence; a tensor on any device, or an array.
            labels: (N,) class indices.

        Raises:
            UserError: other shapes, logits that are not finite, a label that is no class.
        """
        values, classes = _array(logits).astype(np.float64), _array(labels)
        if values.ndim != 2 or classes.shape != values.shape[:1]:
            raise UserError(f"update needs logits (N, C) and labels (N,), not {values.shape} and {classes.shape}")
        if not np.isfinite(values).all():
            raise UserError("update got logits that are not finite")
        if classes.dtype.kind not in "iu" or (len(classes) and not 0 <= classes.min() <= classes.max() < values.shape[1]):
            raise UserError(f"update needs labels that are class indices from 0 to {values.shape[1] - 1}")
        self._batches.append(columns(values, classes))

    def compute(self) -> dict[str, float]:
        """Every value of the metrics over all samples so far; {} if there are none."""
        if not self._batches:
            return {}
        records: Mapping[str, np.ndarray] = {
            name: np.concatenate([batch[name] for batch in self._batches]) for name in self._batches[0]
        }
        found: dict[str, float] = {}
        for spec in self.specs:
            plugin, arguments = metrics.arguments(metrics.spec(spec))
            found |= dict(plugin.make(records, **arguments))
        return found

    def __len__(self) -> int:
        """How many samples were added."""
        return sum(len(batch["label"]) for batch in self._batches)


def columns(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a record that logits (N, C) and labels (N,) give, in its types."""
    log_p = log_softmax(logits, axis=1)
    p, rows, prediction = np.exp(log_p), np.arange(len(labels)), logits.argmax(1)
    onehot = np.eye(logits.shape[1])[labels]
    label_p = p[rows, labels].astype(np.float32)
    told = -np.log(np.maximum(label_p, SMALLEST, dtype=np.float64))
    return {
        "label": labels.astype(np.int64),
        "prediction": prediction.astype(np.int64),
        "correct": prediction == labels,
        "confidence": p.max(1).astype(np.float32),
        "label_probability": label_p,
        LOSS: np.where(label_p > SMALLEST, told, -log_p[rows, labels]),
        "entropy": (-(p * np.where(p > 0, log_p, 0)).sum(1)).astype(np.float32),
        "brier": ((p - onehot) ** 2).sum(1).astype(np.float32),
        "dirichlet_confidence": np.full(len(labels), np.nan, np.float32),  # needs cosines: has no value here
    }


def _array(values: Any) -> np.ndarray:
    """A tensor of any device, or anything numpy takes."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return np.asarray(values.float() if values.is_floating_point() and values.element_size() < 4 else values)  # bf16
