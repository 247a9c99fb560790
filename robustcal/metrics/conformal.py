"""Split conformal prediction from stored logits: sets of classes that hold the true one with a chosen probability.

Every class of a sample has a nonconformity score; a set holds the classes whose score is at most a threshold, the
ceil((n + 1) level)-th smallest score of the true classes of n calibration samples. On further samples of the same
distribution the true class is in the set with probability level or a little more (Vovk et al. 2005); under attack nothing
is promised. Scores:

- "threshold" (LAC; Sadinle et al. 2019): 1 - p. The smallest sets on average. Kept as -ln p, which has the same order and
  does not round where p is 1.
- "aps" (Romano et al. 2020): the probability of the class and of all likelier ones, less a random share u of its own.
- "raps" (Angelopoulos et al. 2021): the same, and a penalty for every class beyond the first `FREE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from ..types import Records, UserError
from .bins import binomial_limits
from .logits import logits_of, single_label

METHODS = ("threshold", "aps", "raps")
#: RAPS: what every class costs beyond the first so many.
PENALTY, FREE = 0.1, 1


class Scored(NamedTuple):
    """Scores (N, C) of all classes, likeliest first, and the place (N,) of the true class among them."""

    scores: np.ndarray
    place: np.ndarray

    @property
    def of_label(self) -> np.ndarray:
        """Score (N,) of the true class."""
        return np.asarray(self.scores[np.arange(len(self.place)), self.place])


def nonconformity(records: Records, method: str = "threshold", penalty: float = PENALTY, free: int = FREE) -> Scored:
    """Scores of every class of every sample; u of a sample follows from its id, so it is the same under every attack.

    Raises:
        UserError: an unknown method; records without logits, of a multi-label task, or of more classes than are stored.
    """
    if method not in METHODS:
        raise UserError(f"conformal method '{method}' is unknown; there are: {', '.join(METHODS)}")
    if not single_label(records):
        raise UserError("conformal sets are of single-label records; these are multi-label")
    logits = logits_of(records)
    if logits.hidden:
        raise UserError(f"conformal sets need every logit; these records hold {logits.top.shape[1]} of {logits.classes_in_all}")
    place = (logits.classes == np.asarray(records["label"])[:, None]).argmax(1)
    if method == "threshold":
        return Scored(logits.normaliser()[:, None] - logits.top, place)
    p = logits.probabilities()
    scores = p.cumsum(1) - uniform_of(records["id"])[:, None] * p
    if method == "raps":
        scores = scores + penalty * np.maximum(np.arange(1, p.shape[1] + 1) - free, 0)
    return Scored(scores, place)


def uniform_of(ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """A number (N,) in [0, 1) for every sample, from its id alone."""
    digests = [hashlib.sha256(f"conformal\0{name}".encode()).digest()[:8] for name in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.float64) / 2.0**64


def threshold(scores: np.ndarray, level: float = 0.9) -> float:
    """The ceil((n + 1) level)-th smallest of n scores; infinite, every class, where n is too small for the level."""
    k = place_of(len(scores), level)
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else float("inf")


def place_of(n: int, level: float) -> int:
    """ceil((n + 1) level), undisturbed by rounding: 9 of 9 samples at 90 %."""
    return int(np.ceil((n + 1) * level - 1e-9))


def coverage_limits(n: int, level: float = 0.9, share: float = 0.95) -> tuple[float, float]:
    """Between what the coverage of a threshold from n samples lies with probability `share`.

    It is Beta(k, n + 1 - k) with k = ceil((n + 1) level) for continuous scores (Vovk 2012); 1 and 1 where k > n.
    """
    k = place_of(n, level)
    if k > n:
        return 1.0, 1.0
    low, high = (float(betaincinv(k, n + 1 - k, (1 + side * share) / 2)) for side in (-1, 1))
    return low, high


def prediction_sets(scored: Scored, limit: float) -> np.ndarray:
    """Which classes, likeliest first, are in the set: (N, C) bool."""
    return np.asarray(scored.scores <= limit)


def outcomes(scored: Scored, limit: float) -> np.ndarray:
    """Per sample whether the set holds the true class, and how many classes it holds: (N, 2) float64."""
    return np.stack([scored.of_label <= limit, prediction_sets(scored, limit).sum(1)], axis=1).astype(np.float64)


def lowest_class_coverage(covered: np.ndarray, labels: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Coverage of the class that is covered least, with limits; nan without samples.

    The limits are the least of the classes' exact binomial limits, each at Bonferroni's level: with probability `level`
    all classes lie within theirs, and then so does the least of them.
    """
    classes = np.unique(labels)
    if not len(classes):
        return float("nan"), float("nan"), float("nan")
    counts = np.array([(labels == c).sum() for c in classes])
    hits = np.array([covered[labels == c].sum() for c in classes])
    lower, upper = binomial_limits(hits, counts, 1 - (1 - level) / len(classes))
    return float((hits / counts).min()), float(lower.min()), float(upper.min())
