"""Randomness keyed by (seed, sample id): batch size, order, shard and resume cannot change a draw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


class Noise:
    """A row of independent random streams, one per sample of a batch.

    Every call draws the next numbers of each sample's own stream, so a sample sees the same numbers whatever stands
    beside it. Drawn on the CPU and moved, so a GPU sees the same numbers too.
    """

    def __init__(self, seed: int, ids: Sequence[str], device: torch.device | str = "cpu"):
        self.seed, self.ids, self.device = seed, tuple(ids), device
        self.streams = [np.random.Generator(np.random.Philox(key=_key(seed, i))) for i in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform numbers in [low, high): (N, *shape) float32."""
        rows = np.stack([stream.random(tuple(shape), dtype=np.float32) for stream in self.streams])
        return (torch.from_numpy(rows) * (high - low) + low).to(self.device)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal numbers: (N, *shape) float32."""
        rows = np.stack([stream.standard_normal(tuple(shape), dtype=np.float32) for stream in self.streams])
        return torch.from_numpy(rows).to(self.device)

    def integers(self, shape: Sequence[int], high: int) -> torch.Tensor:
        """Integers in [0, high): (N, *shape) int64."""
        rows = np.stack([stream.integers(0, high, tuple(shape)) for stream in self.streams])
        return torch.from_numpy(rows).to(self.device)

    def select(self, index: torch.Tensor) -> Noise:
        """The streams of some samples (boolean mask or indices), shared with this object, not copied."""
        rows = torch.arange(len(self))[index.cpu()].tolist()
        chosen = Noise.__new__(Noise)
        chosen.seed, chosen.device = self.seed, self.device
        chosen.ids = tuple(self.ids[i] for i in rows)
        chosen.streams = [self.streams[i] for i in rows]
        return chosen


def _key(seed: int, sample: str) -> np.ndarray:
    digest = hashlib.sha256(f"{seed}\0{sample}".encode()).digest()
    return np.frombuffer(digest[:16], dtype=np.uint64).copy()
