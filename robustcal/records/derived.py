"""Derived columns are not believed: what follows from the logits and the label of a record is computed again and compared.

With more classes than logits are stored, entropy and Brier score are known within bounds only. The Dirichlet reading is one of
cosines, which are the logits over the model's scale: that scale, and the bias, are solved from the reading itself and have to be
the same for all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import entr, psi, softmax

from ..types import Records

#: Columns that are compared, and those that they follow from.
DERIVED = (
    "prediction", "correct", "confidence", "label_probability", "entropy", "brier", "dirichlet_confidence", "log_alpha0", "au",
    "log_eu",
)  # fmt: skip
GIVEN = ("label", "labels", "top_logits", "top_classes", "rest_logit")
#: Rounding of columns kept as float32, and of logits near 100.
SLACK = 1e-4
#: Rows that the scale of the Dirichlet reading is solved from, and steps of Newton's method.
SOLVED, STEPS = 3, 30


class Softmax(NamedTuple):
    """Probabilities of N samples, of the K stored classes and of all others together: `top` (N, K) stored logits, descending;
    `classes` (N, K); `hidden` (N,) log-sum-exp of the other logits, -inf if there are none; `p` (N, K); `rest` (N,)."""

    top: np.ndarray
    classes: np.ndarray
    hidden: np.ndarray
    p: np.ndarray
    rest: np.ndarray

    def entropy(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (N,): the rest in one class, or in a million."""
        stored = entr(self.p).sum(1) + entr(self.rest)
        return stored, stored + self.rest * np.log(1e6)

    def squares(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (N,) of the sum of squared probabilities."""
        stored = np.einsum("nk,nk->n", self.p, self.p)
        return stored, stored + self.rest * np.minimum(self.rest, self.p[:, -1])

    def of(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (N,) of the probability of one class a sample."""
        here = self.classes == labels[:, None]
        found, stored = np.where(here, self.p, 0.0).sum(1), here.any(1)
        return found, np.where(stored, found, np.minimum(self.rest, self.p[:, -1]))


def contradiction(records: Records) -> str:
    """What in these records does not follow from their logits and labels, in a few words; "" if everything does."""
    if "prediction" not in records or not len(records["prediction"]):
        return ""
    known = {name: np.asarray(records[name]) for name in DERIVED if name in records}
    several = records.get("labels")
    right = _right(records, several)
    if "correct" in known and right is not None and (fault := _unlike(known["correct"] != right, "correct", records)):
        return fault
    if "top_logits" not in records or not {"top_classes", "rest_logit"} <= set(records):
        return ""
    found = _softmax(records)
    if isinstance(found, str):
        return found
    chosen = found.classes == known["prediction"][:, None]
    if fault := _unlike((np.where(chosen, found.top, -np.inf).max(1) != found.top[:, 0]), "prediction", records):
        return fault
    for name, (low, high) in _expected(found, records, several).items():
        if name in known and (fault := _outside(known[name], low, high, name, records)):
            return fault
    return _dirichlet_fault(found, known, records)


def _right(records: Records, several: np.ndarray | None) -> np.ndarray | None:
    if several is not None:
        return np.array([value in row for value, row in zip(records["prediction"], several)], dtype=bool)
    return np.asarray(records["prediction"] == records["label"]) if "label" in records else None


def _softmax(records: Records) -> Softmax | str:
    top, classes = (_matrix(records[name]) for name in ("top_logits", "top_classes"))
    hidden = np.asarray(records["rest_logit"], np.float64)
    if top.shape != classes.shape or not np.isfinite(top).all() or np.isnan(hidden).any() or (np.diff(top, axis=1) > 0).any():
        return "contradicts itself: its logits are not numbers in descending order"
    count = top.shape[1]
    if not np.isfinite(hidden).any():  # all are there: 0 ... K - 1, each once
        wide = classes.astype(np.int64)
        sums = (wide.sum(1) == count * (count - 1) // 2) & ((wide**2).sum(1) == (count - 1) * count * (2 * count - 1) // 6)
        if not sums.all() or wide.min() < 0 or wide.max() >= count:
            return "contradicts itself: its logits are not one for each class"
    top = top.astype(np.float64)
    every = softmax(np.column_stack([top, hidden]), axis=1)
    return Softmax(top, classes, hidden, every[:, :-1], every[:, -1])


def _matrix(column: np.ndarray) -> np.ndarray:
    return np.stack(list(column)) if column.dtype == object else column


def _expected(found: Softmax, records: Records, several: np.ndarray | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Column -> its bounds (N,), which are equal where all logits are stored."""
    top, squares = found.p[:, 0], found.squares()
    bounds = {"confidence": (top, top), "entropy": found.entropy()}
    if several is None:
        mass, count = found.of(np.asarray(records["label"])), np.ones(len(top))
    else:
        count = np.array([len(row) for row in several], dtype=np.float64)
        inside = [np.isin(row, own) for row, own in zip(found.classes, several)]
        stored = np.array([p[mask].sum() for p, mask in zip(found.p, inside)])
        lacking = count - np.array([mask.sum() for mask in inside])
        mass = stored, stored + np.minimum(found.rest, lacking * found.p[:, -1])
    share = np.maximum(count, 1)
    low, high = (square - 2 * part / share + count / share**2 for square, part in zip(squares, mass[::-1]))
    return {**bounds, "label_probability": mass, "brier": (np.maximum(low, 0), np.maximum(high, 0))}


def _dirichlet_fault(found: Softmax, known: Records, records: Records) -> str:
    names = ("dirichlet_confidence", "log_alpha0", "au", "log_eu")
    if not all(name in known for name in names) or np.isfinite(found.hidden).any():
        return ""
    confidence, log_total, au, log_eu = (known[name].astype(np.float64) for name in names)
    missing = np.isnan(np.stack([confidence, log_total, au, log_eu]))
    if missing.any():
        return "" if missing.all() else "contradicts itself: its Dirichlet reading has gaps"
    classes = found.top.shape[1]
    log_share = np.log(classes) - np.logaddexp(log_total, np.log(classes))
    if fault := _outside(log_eu, log_share, log_share, "log_eu", records):
        return fault
    scaled = _inverse_scale(found.top, confidence) * found.top
    shifted = scaled - scaled[:, :1]
    mean = np.exp(shifted)
    total = mean.sum(1)
    mean = mean / total[:, None]
    offset = log_total - scaled[:, 0] - np.log(total)  # (1 - bias / scale) / tau, of all rows
    middle = float(np.median(offset))
    spread = psi(np.exp(log_total) + 1)[:, None] - psi(np.exp(scaled + middle) + 1)
    uncertain = (mean * spread).sum(1).clip(0)
    expected = {"dirichlet_confidence": mean[:, 0], "log_alpha0": log_total - offset + middle, "au": uncertain}
    slack = 10 * SLACK * max(1.0, float(np.abs(scaled[:, 0]).max()))
    for name, value in expected.items():
        room = slack if name == "log_alpha0" else SLACK
        if fault := _outside(known[name], value - room, value + room, name, records):
            return fault
    return ""


def _inverse_scale(top: np.ndarray, confidence: np.ndarray) -> float:
    """u = 1 / (scale tau) with confidence = softmax(u logits): Newton on the convex log sum exp u (l_k - l_0) from the left."""
    rows = np.argsort(confidence)[:SOLVED]
    gaps, wanted, u = top[rows] - top[rows, :1], -np.log(confidence[rows]), np.zeros(len(rows))
    for _ in range(STEPS):
        weights = np.exp(u[:, None] * gaps)
        total = weights.sum(1)
        slope = (weights * gaps).sum(1) / total
        step = (np.log(total) - wanted) / np.where(slope == 0, -np.inf, -slope)
        u = u + step
        if np.abs(step).max() < 1e-13:
            break
    return float(np.median(u))


def _outside(value: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, records: Records) -> str:
    value = np.asarray(value, np.float64)
    return _unlike(~((value >= low - SLACK) & (value <= high + SLACK)), name, records)


def _unlike(wrong: np.ndarray, name: str, records: Records) -> str:
    if not wrong.any():
        return ""
    first = records["id"][int(np.argmax(wrong))] if "id" in records else f"row {int(np.argmax(wrong))}"
    return f"contradicts itself: {name} does not follow from logits and label in {int(wrong.sum())} rows, such as {first}"
