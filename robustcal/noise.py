"""Randomness keyed by (seed, sample id): batch size, order, shard and resume cannot change a draw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """What is drawn of each stream: `kind` is the generator's method, `shape` that of one sample's numbers."""

    kind: str  #: "random" (uniform in [0, 1), float32), "standard_normal" (float32) or "integers" (below `high`, int64)
    shape: tuple[int, ...]
    high: int = 0

    def of(self, stream: np.random.Generator) -> Any:
        """The next numbers of a stream; numpy releases the interpreter while it fills large arrays."""
        if self.kind == "integers":
            return stream.integers(0, self.high, self.shape)
        return getattr(stream, self.kind)(self.shape, dtype=np.float32)


@dataclass(frozen=True)
class Ahead:
    """The first draw of some samples' streams, made before an attack asks for it: see `draw_ahead`.

    `values` (N, *shape) lie on the device; `states` are those of the streams after the draw.
    """

    draw: Draw
    values: torch.Tensor
    states: tuple[Any, ...]

    def __getitem__(self, rows: slice) -> Ahead:
        return Ahead(self.draw, self.values[rows], self.states[rows])

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return self.values.numel() * self.values.element_size()


def draw_ahead(seed: int, ids: Sequence[str], draw: Draw, threads: int = 1, pin: bool = False) -> Ahead:
    """What `Noise(seed, ids)` would draw first, on the CPU, over several threads: the same bits.

    Args:
        pin: put the values into page-locked memory, from which a GPU reads without waiting.
    """
    kind = torch.int64 if draw.kind == "integers" else torch.float32
    values = torch.empty((len(ids), *draw.shape), dtype=kind, pin_memory=pin)
    rows: Any = values.numpy()

    def fill(place: int) -> Any:
        stream = _stream(seed, ids[place])
        rows[place] = draw.of(stream)
        return stream.bit_generator.state

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            return Ahead(draw, values, tuple(pool.map(fill, range(len(ids)))))
    return Ahead(draw, values, tuple(map(fill, range(len(ids)))))


class Noise:
    """A row of independent random streams, one per sample of a batch.

    Every call draws the next numbers of each sample's own stream, so a sample sees the same numbers whatever stands
    beside it. Drawn on the CPU and moved, so a GPU sees the same numbers too.

    Args:
        ahead: the first draw of these samples, made already; of no use, and no harm, where another is asked for first.
    """

    def __init__(self, seed: int, ids: Sequence[str], device: torch.device | str = "cpu", ahead: Ahead | None = None):
        self.seed, self.ids, self.device = seed, tuple(ids), device
        self.first: Draw | None = None  #: what was asked for first: worth drawing ahead next time
        self._root, self._ahead = self, ahead
        self._rows: list[int] | None = None  # of `ahead`; None: all
        states = ahead.states if ahead else ()
        self._streams = [_Lazy(seed, name, number, states) for number, name in enumerate(self.ids)]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def streams(self) -> list[np.random.Generator]:
        """The generator of each sample."""
        return [lazy.stream() for lazy in self._streams]

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform numbers in [low, high): (N, *shape) float32."""
        return self._next(Draw("random", tuple(shape))) * (high - low) + low

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal numbers: (N, *shape) float32."""
        return self._next(Draw("standard_normal", tuple(shape)))

    def integers(self, shape: Sequence[int], high: int) -> torch.Tensor:
        """Integers in [0, high): (N, *shape) int64."""
        return self._next(Draw("integers", tuple(shape), high))

    def select(self, index: torch.Tensor) -> Noise:
        """The streams of some samples (boolean mask or indices), shared with this object, not copied."""
        rows = torch.arange(len(self))[index.cpu()].tolist()
        chosen = Noise.__new__(Noise)
        chosen.seed, chosen.device, chosen.first = self.seed, self.device, self.first
        chosen.ids = tuple(self.ids[i] for i in rows)
        chosen._streams = [self._streams[i] for i in rows]
        chosen._root, chosen._ahead = self._root, self._ahead
        chosen._rows = rows if self._rows is None else [self._rows[i] for i in rows]
        return chosen

    def _next(self, draw: Draw) -> torch.Tensor:
        """The next draw of every stream, or its copy made ahead: a new tensor on the device."""
        if self._root.first is None:
            self._root.first = draw
        if self._ahead is not None and self._ahead.draw == draw and self._untouched():
            for lazy in self._streams:
                lazy.begun = True
            values = self._ahead.values.to(self.device)
            return values.clone() if self._rows is None else values[torch.tensor(self._rows, device=values.device)]
        rows = np.stack([draw.of(lazy.stream()) for lazy in self._streams])
        return torch.from_numpy(rows).to(self.device)


    def _untouched(self) -> bool:
        """Whether nothing was drawn of these streams, and none stands here twice."""
        once = self._rows is None or len(set(self._rows)) == len(self._rows)
        return once and not any(lazy.begun for lazy in self._streams)


class _Lazy:
    """One sample's stream, made when it is first drawn from; where its first draw was made ahead, it goes on behind it."""

    __slots__ = ("_made", "_number", "_sample", "_seed", "_states", "begun")

    def __init__(self, seed: int, sample: str, number: int, states: tuple[Any, ...]):
        self._seed, self._sample, self._number, self._states = seed, sample, number, states
        self._made: np.random.Generator | None = None
        self.begun = False

    def stream(self) -> np.random.Generator:
        if self._made is None:
            self._made = _stream(self._seed, self._sample)
            if self.begun:
                self._made.bit_generator.state = self._states[self._number]
        self.begun = True
        return self._made


def _stream(seed: int, sample: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_key(seed, sample)))


def _key(seed: int, sample: str) -> np.ndarray:
    digest = hashlib.sha256(f"{seed}\0{sample}".encode()).digest()
    return np.frombuffer(digest[:16], dtype=np.uint64).copy()
