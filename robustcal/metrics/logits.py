"""The stored logits of records: the largest ones with their classes, and the log-sum-exp of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Records, UserError

#: What the metrics that use this module read.
COLUMNS = ("top_logits", "top_classes", "rest_logit", "label")


@dataclass(frozen=True)
class Logits:
    """Logits of N samples, of which the K largest are stored.

    Attributes:
        top: (N, K) descending, float64.
        classes: (N, K) their class indices.
        rest: (N,) log-sum-exp of the others; -inf if there are none.
        hidden: how many others there are. They are taken as equal to each other where it matters.
    """

    top: np.ndarray
    classes: np.ndarray
    rest: np.ndarray
    hidden: int = 0

    @property
    def classes_in_all(self) -> int:
        return int(self.top.shape[1]) + self.hidden

    def normaliser(self, temperature: float = 1.0) -> np.ndarray:
        """Log-sum-exp of all logits / temperature: (N,)."""
        largest = self.top[:, :1] / temperature
        stored = largest[:, 0] + np.log(np.exp(self.top / temperature - largest).sum(1))
        if not self.hidden:
            return np.asarray(stored)
        return np.asarray(np.logaddexp(stored, self.each_hidden / temperature + np.log(self.hidden)))

    @property
    def each_hidden(self) -> np.ndarray:
        """Logit (N,) of every class that is not stored, were they equal; -inf if there are none."""
        return self.rest - np.log(self.hidden) if self.hidden else self.rest

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Logit (N,) of one class per sample."""
        here = self.classes == np.asarray(labels)[:, None]
        return np.where(here.any(1), np.where(here, self.top, 0.0).sum(1), self.each_hidden)

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Softmax probabilities (N, K) of the stored classes."""
        return np.asarray(np.exp(self.top / temperature - self.normaliser(temperature)[:, None]))


def logits_of(records: Records) -> Logits:
    """The logits of records.

    Raises:
        UserError: the records were read or written without them.
    """
    missing = [name for name in COLUMNS[:3] if name not in records]
    if missing:
        raise UserError(f"the records have no column '{missing[0]}', which this metric needs")
    top, rest = matrix(records["top_logits"]).astype(np.float64), np.asarray(records["rest_logit"], np.float64)
    classes, hidden = matrix(records["top_classes"]), 0
    if np.isfinite(rest).any():
        named = int(max(classes.max(), np.max(records["label"]))) + 1  # no more is known where eu is not recorded
        hidden = max(1, max(class_count(records), named) - top.shape[1])
    return Logits(top, classes, rest, hidden)


def class_count(records: Records) -> int:
    """Number of classes C, solved from eu = C / (alpha_0 + C); 0 where the records have no Dirichlet reading."""
    log_eu = np.asarray(records["log_eu"], dtype=np.float64)
    if not np.isfinite(log_eu).any():
        return 0
    log_alpha0 = np.asarray(records["log_alpha0"], dtype=np.float64)
    return int(np.rint(np.nanmedian(np.exp(log_eu + log_alpha0) / -np.expm1(log_eu))))


def matrix(column: np.ndarray) -> np.ndarray:
    """A list column as (N, K), whether it is stored as a matrix or as an array of rows."""
    column = np.asarray(column)
    return np.stack(list(column)) if column.dtype == object and len(column) else column


def single_label(records: Records) -> bool:
    """Whether every sample has one label (multi-label records have label -1)."""
    return bool((np.asarray(records["label"]) >= 0).all())
