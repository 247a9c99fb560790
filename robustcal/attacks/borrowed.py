"""What every adapter of a third-party attack library needs: global state lent and given back, a seed, and checks."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
import torch
from torch import Tensor

from ..noise import Noise
from ..types import Classifier, UserError


def draw_seed(noise: Noise) -> int:
    """A seed for a library that has one generator for the whole batch: drawn from the first sample's stream.

    Such a library's draws depend on the batch's composition; own attacks do not have this limit.
    """
    return int(noise.integers((), 2**31 - 1)[0])


@contextmanager
def borrowed_state(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and random inside; outside they stand as before.

    What the library prints is dropped: it would stand among the lines of a sweep, once for each batch.
    """
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), redirect_stdout(io.StringIO()):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def need_classes(classifier: Classifier, least: int, name: str) -> None:
    """Raise `UserError` where the classifier has fewer classes than the attack is defined for."""
    if classifier.num_classes < least:
        hint = "; autoattack adapts" if classifier.num_classes >= 2 else ""
        raise UserError(f"{name} needs {least} classes, here are {classifier.num_classes}{hint}")


def need_single_labels(labels: Tensor, name: str) -> None:
    """Raise `UserError` for multi-label data, which no borrowed attack understands."""
    if labels.ndim != 1:
        raise UserError(f"'{name}' needs one label per image; for multi-label data use pgd or cw")
