"""Calibrators beside temperature: vector scaling, isotonic regression and histogram binning, from records to records.

Vector scaling changes every logit and so needs the classes it was fitted to. The two others change the confidence of the
prediction alone (top-label calibration; Gupta and Ramdas 2022): predictions stay, and there is no distribution any more
whose likelihood could be judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import fmin_l_bfgs_b
from scipy.special import logsumexp

from ..types import Records, UserError
from .bins import bin_edges, bin_index, checked
from .logits import logits_of, single_label
from .scores import LOSS
from .temperature import at_temperature, fit_temperature

#: From records to the same records as calibrated.
Calibrator = Callable[[Records], Records]
#: Columns that describe the distribution, not its largest probability.
DISTRIBUTION = ("label_probability", "entropy", "brier")
LOGITS = ("top_logits", "top_classes", "rest_logit", LOSS)


class Fitted(NamedTuple):
    """A calibrator as fitted; `temperature` is nan where it has none."""

    apply: Calibrator
    temperature: float = float("nan")


# -- temperature and vector scaling ------------------------------------------------------------------------------------
def temperature(records: Records) -> Fitted:
    """One temperature for all logits (Guo et al. 2017), see `metrics.temperature`."""
    found = fit_temperature(records)
    return Fitted(lambda target: at_temperature(target, found), found)


@dataclass(frozen=True)
class Vector:
    """Logits z become z / t + (w - 1) (z - m) / t + b: vector scaling (Guo et al. 2017), w = 1 and b = 0 being temperature t.

    Attributes:
        weight, bias, centre: (C,) w, b and m, the mean logits of the classes in the samples fitted to.
    """

    temperature: float
    weight: np.ndarray
    bias: np.ndarray
    centre: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, C) as scaled."""
        if logits.shape[1] != len(self.weight):
            raise UserError(f"a vector scaling of {len(self.weight)} classes does not fit records of {logits.shape[1]}")
        return np.asarray((logits + (self.weight - 1) * (logits - self.centre)) / self.temperature + self.bias)


def fit_vector(logits: np.ndarray, labels: np.ndarray, t: float) -> Vector:
    """The vector scaling of logits (N, C) with the least posterior loss.

    That is the summed negative log-likelihood of the labels and a normal prior of standard deviation 1 on every w - 1 and
    b: without it there is no best one wherever a class is told apart without mistakes, as happens with few samples.
    """
    n, classes = logits.shape
    centre = logits.mean(0)
    scaled, moved = logits / t, (logits - centre) / t
    hit = np.zeros((n, classes))
    hit[np.arange(n), labels] = 1

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        shift, bias = parameters.reshape(2, classes)
        z = scaled + shift * moved + bias
        norm = logsumexp(z, axis=1)
        error = np.exp(z - norm[:, None]) - hit
        slope = np.concatenate([(error * moved).sum(0) + shift, error.sum(0) + bias])
        return float((norm - z[np.arange(n), labels]).sum() + parameters @ parameters / 2), slope

    best, _, _ = fmin_l_bfgs_b(loss, np.zeros(2 * classes), maxiter=500, factr=1e3, pgtol=1e-6)
    shift, bias = np.asarray(best).reshape(2, classes)
    return Vector(t, 1 + shift, bias, centre)


def vector(records: Records) -> Fitted:
    """Vector scaling about the best temperature."""
    t = fit_temperature(records)
    found = fit_vector(all_logits(records), np.asarray(records["label"]), t)
    return Fitted(lambda target: with_logits(target, found(all_logits(target))))


def all_logits(records: Records) -> np.ndarray:
    """Logits (N, C) in the order of the classes.

    Raises:
        UserError: multi-label records, or more classes than are stored.
    """
    if not single_label(records):
        raise UserError("calibrators are fitted to single-label records; these are multi-label")
    logits = logits_of(records)
    if logits.hidden:
        raise UserError(f"vector scaling needs every logit; these records hold {logits.top.shape[1]} of {logits.classes_in_all}")
    found = np.empty_like(logits.top)
    np.put_along_axis(found, logits.classes.astype(np.int64), logits.top, axis=1)
    return found


def with_logits(records: Records, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Records as they would be with these logits (N, C): predictions may change; the Dirichlet columns stay."""
    order = np.argsort(-logits, axis=1, kind="stable")
    top = np.take_along_axis(logits, order, axis=1)
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    p, label = np.exp(log_p), np.asarray(records["label"])
    of_label = p[np.arange(len(p)), label]
    changed = {
        "prediction": order[:, 0], "correct": order[:, 0] == label, "confidence": p.max(1), "label_probability": of_label,
        "entropy": -(p * log_p).sum(1), "brier": (p**2).sum(1) - 2 * of_label + 1, "top_logits": top, "top_classes": order,
        "rest_logit": np.full(len(p), -np.inf),
    }  # fmt: skip
    return {**{name: column for name, column in records.items() if name != LOSS}, **changed}


# -- of the confidence alone -------------------------------------------------------------------------------------------
def isotonic(records: Records) -> Fitted:
    """The rising step function of the confidence nearest to correctness (Zadrozny and Elkan 2002), linear between samples."""
    from sklearn.isotonic import IsotonicRegression  # slow to import, and most reports have no use for it

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(*checked(records["confidence"], records["correct"]))
    return Fitted(lambda target: with_confidence(target, model.predict(np.asarray(target["confidence"], np.float64))))


def histogram(records: Records, bins: int = 15) -> Fitted:
    """The accuracy of the bin that a confidence falls in, bins of equally many samples (Zadrozny and Elkan 2001)."""
    confidence, correct = checked(records["confidence"], records["correct"])
    edges = bin_edges(confidence, bins, "mass")
    index, size = bin_index(confidence, edges), len(edges) - 1
    counts, hits = np.bincount(index, minlength=size), np.bincount(index, correct, minlength=size)
    middle = (edges[1:] + edges[:-1]) / 2  # of a bin without samples, which ties can leave
    accuracy = np.where(counts > 0, hits / np.maximum(counts, 1), middle)

    def apply(target: Records) -> Records:
        return with_confidence(target, accuracy[bin_index(np.asarray(target["confidence"], np.float64), edges)])

    return Fitted(apply)


def with_confidence(records: Records, confidence: np.ndarray) -> dict[str, np.ndarray]:
    """Records with another confidence (N,) in the prediction; what else describes the distribution is nan or left out."""
    kept = {name: column for name, column in records.items() if name not in LOGITS}
    unknown = np.full(len(confidence), np.nan)
    return kept | {name: unknown for name in DISTRIBUTION if name in records} | {"confidence": np.asarray(confidence, np.float64)}


#: Name -> what fits it to records.
CALIBRATORS: dict[str, Callable[[Records], Fitted]] = {
    "temperature": temperature, "vector": vector, "isotonic": isotonic, "histogram": histogram,
}  # fmt: skip
#: Those that need the classes of the samples that they were fitted to.
SAME_CLASSES = ("vector",)
