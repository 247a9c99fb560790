"""Which samples of a dataset a sweep takes, and in which order: one seeded order, of which every cell holds a beginning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import registry
from ..cell import SHARD
from ..clip.prompts import prompts_hash, sentences
from ..types import Dataset, Spec, UserError

#: One label an image; several (multi-hot rows); none that is right (rows without a class).
TASKS = ("single", "multi", "ood")
PROTOCOL = ("name", "classnames", "templates", "task", "resolution", "labels", "ids", "read")


@dataclass(frozen=True)
class Source:
    """A dataset as the sweep uses it: the adapter, and its samples' indices in the order in which they are taken."""

    spec: str
    dataset: Dataset
    order: np.ndarray
    identity: str

    def __len__(self) -> int:
        return len(self.order)

    def shard(self, index: int, rows: int = SHARD) -> list[int]:
        """The indices of the first `rows` samples of a shard."""
        return [int(place) for place in self.order[index * SHARD : index * SHARD + rows]]

    def first(self, count: int) -> list[str]:
        """The ids of the first `count` samples."""
        return [self.dataset.ids[i] for i in self.order[:count]]

    @cached_property
    def order_hash(self) -> str:
        """Hash of all ids in order."""
        return hashlib.sha256("\n".join(self.first(len(self))).encode()).hexdigest()[:16]

    @cached_property
    def prompts(self) -> str:
        """Hash of class names and templates."""
        return prompts_hash(self.dataset.classnames, self.dataset.templates)


def make_source(spec: Spec, seed: int) -> Source:
    """Open a dataset and put its samples in order.

    Raises:
        UserError: no dataset, no samples, a single class, labels that are no classes, or ids that repeat.
    """
    dataset = registry.datasets.build(spec)
    check_protocol(spec, dataset)
    if len(dataset.ids) == 0:
        raise UserError(f"dataset '{spec}' has no samples")
    if dataset.task == "single" and len(dataset.classnames) < 2:
        only = ", ".join(dataset.classnames)
        raise UserError(f"dataset '{spec}' has one class, '{only}'; a classifier needs two: is it one folder too deep?")
    labels = np.asarray(dataset.labels)
    if labels.shape[0] != len(dataset.ids) or labels.min() < 0 or labels.max() >= max(len(dataset.classnames), 2):
        what = f"{labels.shape[0]} labels from {labels.min()} to {labels.max()}"
        raise UserError(f"dataset '{spec}' has {what} for {len(dataset.ids)} samples of {len(dataset.classnames)} classes")
    if len(set(dataset.ids)) < len(dataset.ids):
        raise UserError(f"dataset '{spec}' gives one id to several samples")
    own = registry.datasets.arguments(spec)[0].source_sha256  # of a user's own file
    identity = "+".join(filter(None, (str(getattr(dataset, "identity", "")), own)))
    return Source(str(spec), dataset, sample_order(labels, seed), identity)


def check_protocol(spec: Spec, dataset: Any) -> None:
    """Raise `UserError` unless a plugin's object is a dataset."""
    lacking = [name for name in PROTOCOL if not hasattr(dataset, name)]
    if lacking:
        raise UserError(f"dataset '{spec}' is a {type(dataset).__name__} without {', '.join(lacking)}")
    if dataset.task not in TASKS:
        raise UserError(f"dataset '{spec}' has the task {dataset.task!r}; there are: {', '.join(TASKS)}")
    try:
        sentences(dataset.classnames, dataset.templates)
    except UserError as error:
        raise UserError(f"dataset '{spec}': {error}") from None


def sample_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """All indices in the order in which samples are taken: seeded, and every beginning as balanced as classes allow.

    The r-th member of every class comes before the (r+1)-th of any. Multi-hot labels (n, C) have no classes to balance:
    a plain random order.
    """
    labels = np.asarray(labels)
    generator = np.random.default_rng([seed, 7919])
    order = generator.permutation(len(labels))
    if labels.ndim == 2:
        return order
    shuffled = labels[order]
    by_class = np.argsort(shuffled, kind="stable")
    starts = np.searchsorted(shuffled[by_class], shuffled[by_class])
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - starts
    tie = generator.permutation(int(labels.max()) + 1)[shuffled]
    return order[np.lexsort((tie, turn))]
