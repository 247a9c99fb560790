"""Outcomes that could have been but were not: noise of shares at 0 and 1, where a bootstrap sees none.

A resample of samples that are all wrong is all wrong too, so its draws do not vary, although a few of a hundred could have
been right. Here every resample is given one pseudo-sample that is right and one that is wrong, each at the place of a random
sample. Its weight is 0 or z^2 / (1 + z^2 / n) of a normal z, with equal chance: the number of hits at which none is seen
just as rarely as z says, so that without a hit the quantiles of the draws are Wilson's (1927) score limits. With k hits in n,
k / n small, the sum has the mean k + 1/2 and the variance k + 5/4 of the score limits read as a distribution of the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..metrics.logits import matrix
from ..metrics.scores import LOSS, SMALLEST
from ..metrics.weighted import Means, Weighted
from ..types import Records, UserError
from .resample import Function, Inputs, is_dense

#: Random samples whose place a pseudo-sample takes, and how many of them where a metric is called for each.
PLACES, CALLS = 48, 16


@dataclass(frozen=True)
class Pseudo:
    """The pseudo-samples of one cell: whose place they take (S,), and their weight in each resample.

    Attributes:
        right, wrong: (R,) weights, in samples; those of resample r stand at ``places[r % S]``.
    """

    places: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    n: int

    @classmethod
    def of(cls, records: Records, count: int, key: str) -> Pseudo:
        """Those of records in `count` resamples. Cells that differ have independent ones, equal cells the same."""
        n = len(records["correct"])
        digest = hashlib.sha256(key.encode())
        for name in ("correct", "prediction", "confidence"):
            if name in records:
                digest.update(np.ascontiguousarray(records[name]).tobytes())
        random = np.random.Generator(np.random.SFC64(list(digest.digest())))
        levels = (np.arange(count) + 0.5) / max(count, 1)  # quantiles in random order: exact, whatever their number
        z = np.stack([random.permutation(ndtri(levels)) for _ in range(2)]).clip(0) ** 2
        right, wrong = z / (1 + z / max(n, 1))
        return cls(random.integers(0, max(n, 1), PLACES), right, wrong, n)

    @property
    def at(self) -> np.ndarray:
        """Which of the places (R,) each resample takes."""
        return np.arange(len(self.right)) % len(self.places)

    def weights(self, correct: np.ndarray) -> np.ndarray:
        """Weight (R,) by which the outcome at its place turns into the other: a right sample can only turn wrong."""
        return np.asarray(np.where(correct[self.places][self.at], self.wrong, self.right))

    def of_share(self, value: float) -> np.ndarray:
        """What a pseudo-sample of 0 and one of 1 add (R,) to a mean of numbers in [0, 1], or of comparisons of samples."""
        return np.asarray((self.right * (1 - value) - self.wrong * value) / max(self.n, 1))


class Twin(Mapping[str, Any]):
    """Records as if every sample had come out the other way; a column is made when it is asked for.

    The class predicted and the true one change places in the logits; of a right sample, the first and the second. What the
    model sees as likely, and how sure it is, stays. Where the logits are not read, the second class is taken to have all the
    probability that the first leaves, and is not named.
    """

    def __init__(self, records: Records):
        self.records = records

    def __getitem__(self, column: str) -> Any:
        made: dict[str, Callable[[], np.ndarray]] = {
            "correct": lambda: ~self._right, "prediction": self._prediction, "label_probability": lambda: self._probability,
            "brier": self._brier, "top_classes": lambda: self._classes, LOSS: self._loss,
        }  # fmt: skip
        found = self.records[column]  # a column that is not there is missing here too
        return made[column]() if column in made else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def _right(self) -> np.ndarray:
        return np.asarray(self.records["correct"], dtype=bool)

    @cached_property
    def _probability(self) -> np.ndarray:
        """Probability (N,) of the label after the change."""
        first = np.asarray(self.records["confidence"], np.float64)
        second = 1 - first
        if "top_logits" in self.records:
            top = matrix(self.records["top_logits"])
            if top.ndim == 2 and top.shape[1] > 1:
                second = first * np.exp(top[:, 1].astype(np.float64) - top[:, 0])
        return np.asarray(np.where(self._right, second, first))

    def _brier(self) -> np.ndarray:
        before = np.asarray(self.records["label_probability"], np.float64)
        return np.asarray(np.asarray(self.records["brier"], np.float64) + 2 * (before - self._probability))

    def _loss(self) -> np.ndarray:
        return np.asarray(-np.log(np.maximum(self._probability, SMALLEST)))

    def _prediction(self) -> np.ndarray:
        if "top_classes" in self.records:
            return self._classes[:, 0]
        return np.asarray(np.where(self._right, -1, np.asarray(self.records["label"])))

    @cached_property
    def _classes(self) -> np.ndarray:
        """The classes (N, K) of the sorted logits after the change."""
        classes = np.array(matrix(self.records["top_classes"]))
        true = classes == np.asarray(self.records["label"])[:, None]
        if "labels" in self.records:
            true |= _among(classes, self.records["labels"])
        rows = np.arange(len(classes))
        other = np.argmax(true != true[:, :1], axis=1)  # the first that is as true as the prediction is not
        classes[rows, 0], classes[rows, other] = classes[rows, other], classes[rows, 0].copy()
        return classes


def _among(classes: np.ndarray, labels: Any) -> np.ndarray:
    """Whether each class (N, K) is among the positive ones of its sample."""
    rows = [np.isin(row, np.asarray(own, np.int64)) for row, own in zip(classes, labels, strict=True)]
    return np.stack(rows) if rows else np.zeros(classes.shape, bool)


class Replaced(Mapping[str, Any]):
    """Records with the row of one sample from others of the same samples."""

    def __init__(self, records: Records, other: Records, row: int):
        self.records, self.other, self.row = records, other, row

    def __getitem__(self, column: str) -> Any:
        found = np.array(self.records[column])
        found[self.row] = np.asarray(self.other[column])[self.row]
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def displacements(value: Mapping[str, float], function: Function, given: Inputs, pseudo: Pseudo) -> dict[str, np.ndarray]:
    """What the pseudo-samples add (R,) to the values of a metric; names that do not depend on the outcome are left out."""
    if not pseudo.n or not value:
        return {}
    if isinstance(value, Weighted) and value.shares:
        return {name: pseudo.of_share(number) for name, number in value.items()}
    other = (Twin(given[0]), *given[1:])
    try:
        if isinstance(value, Means):
            found = _of_means(value, function(*other), pseudo, given)
        else:
            found = _one_by_one(value, function, given, pseudo)
    except UserError:  # a metric that cannot be asked about outcomes that were not
        return {}
    return {name: np.nan_to_num(step, posinf=0, neginf=0) for name, step in found.items() if np.any(step)}


def _of_means(value: Means, other: Mapping[str, float], pseudo: Pseudo, given: Inputs) -> dict[str, np.ndarray]:
    if not isinstance(other, Means) or other.columns.shape != value.columns.shape:
        return {}
    steps = (other.columns[pseudo.places] - value.columns[pseudo.places]) / pseudo.n
    weights = pseudo.weights(np.asarray(given[0]["correct"], bool))
    if is_dense(value):
        if not steps.any():
            return {}
        moved = value.combine(value.means + weights[:, None] * np.asarray(steps, np.float64)[pseudo.at])
        found = {name: numbers - value[name] for name, numbers in moved.items()}
    else:
        moved = value.combine(value.means + np.asarray(steps.todense(), np.float64))
        found = {name: weights * (numbers - value[name])[pseudo.at] for name, numbers in moved.items()}
    return value.paired(found)


def _one_by_one(value: Mapping[str, float], function: Function, given: Inputs, pseudo: Pseudo) -> dict[str, np.ndarray]:
    """Call a metric once for each of a few places, that sample having come out the other way."""
    few = replace(pseudo, places=pseudo.places[:CALLS])
    twin = Twin(given[0])
    moved = [function(Replaced(given[0], twin, int(place)), *given[1:]) for place in few.places]
    weights = few.weights(np.asarray(given[0]["correct"], bool))
    steps = {name: np.array([float(each.get(name, np.nan)) for each in moved]) - number for name, number in value.items()}
    return {name: weights * step[few.at] for name, step in steps.items()}
