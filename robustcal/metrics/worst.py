"""Per-sample worst cases over a set of attacks, of accuracy and of calibration, from their records: never an average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..types import Records, UserError


def worst_case(records: Sequence[Records], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """For each sample the whole row of the attack that does most harm.

    A wrong prediction outranks a right one, then the lower label probability (higher loss) wins, then the earlier
    attack; so the accuracy is the per-sample AND over the attacks.

    Args:
        records: one per attack, the same samples in the same order. Columns that one of them lacks are left out.
        names: of the attacks; then column ``attack`` says which one each row came from.

    Raises:
        UserError: the records are not of the same samples.
    """
    return _rows(records, worst_attack, names)


def worst_calibration(records: Sequence[Records], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """For each sample the whole row of the attack with the widest gap between confidence and correctness; ties: the earlier.

    The mean of these gaps is at least the binned ECE of any choice of one attack per sample (`gaps`), so it bounds from
    above what these attacks can do to calibration. Arguments and errors as in `worst_case`.
    """
    return _rows(records, widest_gap, names)


def gaps(records: Records) -> np.ndarray:
    """|confidence - correctness| of each sample: (N,) in [0, 1]; nan where the confidence is.

    Its mean is at least the ECE, over any bins: sum_b |sum_{i in b} (conf_i - correct_i)| / N is at most
    sum_i |conf_i - correct_i| / N by the triangle inequality, with equality where no bin holds gaps of both signs.
    """
    return np.asarray(np.abs(np.asarray(records["confidence"], np.float64) - np.asarray(records["correct"], dtype=bool)))


def widest_gap(records: Sequence[Records]) -> np.ndarray:
    """Index of the attack with the widest gap of each sample: (N,) int."""
    return np.asarray(np.nan_to_num(np.stack([gaps(other) for other in records]), nan=-1.0).argmax(axis=0))


def _rows(
    records: Sequence[Records], choose: Callable[[Sequence[Records]], np.ndarray], names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    if not records:
        raise UserError("the worst case needs the records of at least one attack")
    for other in records[1:]:
        if not np.array_equal(np.asarray(other["id"]), np.asarray(records[0]["id"])):
            raise UserError("the worst case needs records of the same samples in the same order")
    choice = choose(records)
    columns = [name for name in records[0] if all(name in other for other in records)]
    worst = {name: _choose([other[name] for other in records], choice) for name in columns}
    if names is not None:
        worst["attack"] = np.asarray(names, dtype=object)[choice]
    return worst


def worst_attack(records: Sequence[Records]) -> np.ndarray:
    """Index of the most harmful attack of each sample: (N,) int."""
    correct = np.stack([np.asarray(other["correct"], dtype=bool) for other in records])
    probability = np.stack([np.asarray(other["label_probability"], dtype=np.float64) for other in records])
    # A probability that is not a number must not win: it ranks as harmless.
    rank = np.where(np.isnan(probability), 2.0, probability) + np.where(correct, 4.0, 0.0)
    return np.asarray(rank.argmin(axis=0))


def _choose(values: Sequence[Any], choice: np.ndarray) -> np.ndarray:
    chosen = _array(values[0]).copy()
    for index, value in enumerate(values[1:], start=1):
        rows = choice == index
        chosen[rows] = _array(value)[rows]
    return chosen


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "US":
        return value
    array = np.empty(len(value), dtype=object)  # texts, and lists of unequal length
    array[:] = list(value)
    return array
