"""What every adapter of a third-party attack library needs: global random state lent and given back, and a seed."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch
from torch import Tensor

from ..noise import Noise
from ..types import UserError


def draw_seed(noise: Noise) -> int:
    """A seed for a library that has one generator for the whole batch: drawn from the first sample's stream.

    Such a library's draws depend on the batch's composition; own attacks do not have this limit.
    """
    return int(noise.integers((), 2**31 - 1)[0])


@contextmanager
def borrowed_rng(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and random inside; outside they stand as before."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def need_single_labels(labels: Tensor, name: str) -> None:
    """Raise `UserError` for multi-label data, which no borrowed attack understands."""
    if labels.ndim != 1:
        raise UserError(f"'{name}' needs one label per image; for multi-label data use pgd or cw")
