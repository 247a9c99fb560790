"""Which samples of a dataset a sweep uses, in which order, and in how many shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import registry
from ..clip.classifier import prompts_hash
from ..types import Dataset, Spec, UserError

PROTOCOL = ("name", "classnames", "templates", "task", "resolution", "labels", "ids", "read")
#: Samples per shard: what is claimed, written and lost at once.
SHARD = 128


@dataclass(frozen=True)
class Source:
    """A dataset as the sweep uses it: the adapter and the chosen sample indices, in order."""

    spec: str
    dataset: Dataset
    indices: np.ndarray
    identity: str

    @property
    def ids(self) -> list[str]:
        return [self.dataset.ids[i] for i in self.indices]

    @property
    def shards(self) -> int:
        return -(-len(self.indices) // SHARD)

    @cached_property
    def samples(self) -> str:
        """Hash of the chosen ids, in order."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()[:16]

    @cached_property
    def prompts(self) -> str:
        """Hash of class names and templates."""
        return prompts_hash(self.dataset.classnames, self.dataset.templates)


def make_source(spec: Spec, limit: int | None, seed: int) -> Source:
    """Open a dataset and choose its samples.

    Raises:
        UserError: no dataset, no samples, a single class, labels that are no classes, or ids that repeat; or an image
            of the choice that the adapter's own `check` finds unreadable.
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
    indices = balanced_subset(labels, limit, seed)
    if hasattr(dataset, "check"):
        dataset.check(indices)
    chosen = [dataset.ids[index] for index in indices]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"dataset '{spec}' gives one id to several samples")
    own = registry.datasets.arguments(spec)[0].source_sha256  # of a user's own file
    return Source(str(spec), dataset, indices, "+".join(filter(None, (str(getattr(dataset, "identity", "")), own))))


def check_protocol(spec: Spec, dataset: Any) -> None:
    """Raise `UserError` unless a plugin's object is a dataset."""
    lacking = [name for name in PROTOCOL if not hasattr(dataset, name)]
    if lacking:
        raise UserError(f"dataset '{spec}' is a {type(dataset).__name__} without {', '.join(lacking)}")
    if dataset.task not in ("single", "multi"):
        raise UserError(f"dataset '{spec}' has the task {dataset.task!r}; there are: single, multi")
    templates = dataset.templates
    if isinstance(templates, str) or not templates or not all(isinstance(text, str) and "{}" in text for text in templates):
        raise UserError(f"dataset '{spec}' has the templates {templates!r}; they are a list of texts, each with {{}} for the class")


def balanced_subset(labels: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Indices of `limit` samples, as many of each class as possible, in dataset order. Seeded; all if limit is None.

    Multi-hot labels (n, C) have no classes to balance: a plain random subset.
    """
    labels = np.asarray(labels)
    count = len(labels)
    if limit is None or limit >= count:
        return np.arange(count)
    generator = np.random.default_rng([seed, 7919])
    order = generator.permutation(count)
    if labels.ndim == 2:
        return np.sort(order[:limit])
    # Round-robin over classes: the r-th member of every class comes before the (r+1)-th of any.
    shuffled = labels[order]
    turn = np.empty(count, dtype=np.int64)
    for label in np.unique(shuffled):
        members = np.flatnonzero(shuffled == label)
        turn[members] = np.arange(len(members))
    tie = generator.permutation(int(labels.max()) + 1)[shuffled]
    return np.sort(order[np.lexsort((tie, turn))[:limit]])
