"""Learning rate and data order as pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

import numpy as np


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to zero; both per optimiser step, `step` counted from 0.

    ``peak (t + 1) / W`` for t < W, else ``peak (1 + cos(pi (t - W) / (T - W))) / 2``: the schedule of the TeCoA code
    and its descendants. A warm-up longer than the run never reaches the cosine.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def steps_per_epoch(samples: int, batch: int, parts: int = 1) -> int:
    """Optimiser steps in one pass; the last, smaller batch counts unless it cannot feed all `parts`."""
    whole, rest = divmod(samples, batch)
    return max(whole + (rest >= parts), 1)


def batch_indices(step: int, samples: int, batch: int, seed: int, parts: int = 1) -> np.ndarray:
    """Positions of the samples of one global batch: an epoch is a permutation keyed by (seed, epoch)."""
    epoch, place = divmod(step, steps_per_epoch(samples, batch, parts))
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(samples)
    return order[place * batch : (place + 1) * batch]


def held_out_split(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split sample positions into (training, held out), at most half held out. Both parts are sorted."""
    order = balanced_order(labels, seed)
    count = min(count, len(labels) // 2)
    return np.sort(order[count:]), np.sort(order[:count])


def balanced_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Sample positions in a seeded order of which every beginning holds the classes as evenly as can be.

    `labels` (n,) class indices; multi-hot labels (n, C) are ordered without regard to class.
    """
    order = np.random.Generator(np.random.Philox(key=[seed, 2**32])).permutation(len(labels))
    if labels.ndim > 1:
        return order
    rank = np.empty(len(labels), dtype=np.int64)
    seen: dict[int, int] = {}
    for position, label in zip(order, labels[order].tolist()):
        rank[position] = seen.get(label, 0)
        seen[label] = rank[position] + 1
    return order[np.argsort(rank[order], kind="stable")]
