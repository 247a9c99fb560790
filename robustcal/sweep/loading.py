"""What an attack begins with, made ready while the one before it runs: images and start noise, on the device."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..cell import Cell
from ..noise import Ahead, Draw, Noise, draw_ahead
from ..types import Batch
from .pixels import Kept, Key, Pixels, keep, unit
from .plan import Plan
from .reading import read

#: Start noise of fewer numbers a sample is drawn when it is asked for.
WORTHWHILE = 1024
#: Loaded shards that are kept: the one under attack, and the next.
SLOTS = 2


@dataclass
class Loaded:
    """Some shards of a cell side by side on the device, and what of their noise was drawn ahead."""

    batch: Batch
    parts: tuple[Kept, ...]  #: the shards, without their pixels
    ahead: dict[tuple[int, Draw], Ahead] = field(default_factory=dict)

    def noise(self, seed: int, draw: Draw | None, rows: slice) -> Noise:
        """The streams of some rows, which an attack that is known to begin with `draw` finds drawn already."""
        found = self.ahead.get((seed, draw)) if draw else None
        return Noise(seed, self.batch.ids[rows], self.batch.images.device, None if found is None else found[rows])


@dataclass
class Loader:
    """Reads shards and draws noise for one worker; one call at a time, in whatever thread.

    Args:
        threads: how many draw noise.
    """

    plan: Plan
    device: str
    pixels: Pixels
    threads: int = 1
    _loaded: OrderedDict[Any, Loaded] = field(default_factory=OrderedDict)
    _draws: dict[tuple[str, int], Draw] = field(default_factory=dict)

    def load(self, cell: Cell, shards: Sequence[int], sign_of_life: Callable[[], None] = lambda: None) -> tuple[Loaded, float]:
        """These shards of a cell, and the seconds that it took to get them.

        Raises:
            Unreadable: an image does not decode, and the cell does not say that such images are skipped.
        """
        start = time.monotonic()
        key = (cell.dataset, cell.identity.skip_unreadable, tuple((shard, cell.rows(shard)) for shard in shards))
        if key not in self._loaded:
            while len(self._loaded) >= SLOTS:
                self._loaded.popitem(last=False)  # room before the new ones come
            parts = []
            for shard in shards:
                parts.append(self._kept(cell, shard))
                sign_of_life()
            self._loaded[key] = Loaded(join(parts, self.device), tuple(part._replace(pixels=torch.empty(0)) for part in parts))
        self._loaded.move_to_end(key)
        loaded, draw = self._loaded[key], self.draw(cell)
        if draw and (cell.seed, draw) not in loaded.ahead:
            loaded.ahead = {(cell.seed, draw): self._drawn(cell.seed, loaded.batch.ids, draw)}
        return loaded, time.monotonic() - start

    def draw(self, cell: Cell) -> Draw | None:
        """What a cell's attack is known to draw first of all."""
        return self._draws.get((cell.attack, cell.resolution))

    def learn(self, cell: Cell, draw: Draw | None) -> None:
        """An attack began with this draw."""
        if draw is not None and torch.Size(draw.shape).numel() >= WORTHWHILE:
            self._draws[cell.attack, cell.resolution] = draw

    def _kept(self, cell: Cell, shard: int) -> Kept:
        source, rows = self.plan.sources[cell.dataset], cell.rows(shard)
        key = Key(cell.dataset, source.identity, source.order_hash, shard, rows, cell.identity.skip_unreadable)
        kept = self.pixels.get(key)
        if kept is None:
            kept = keep(*read(source.dataset, source.shard(shard, rows), cell.identity.skip_unreadable))
            self.pixels.put(key, kept)
        return kept

    def _drawn(self, seed: int, ids: Sequence[str], draw: Draw) -> Ahead:
        on_gpu = self.device.startswith("cuda")
        found = draw_ahead(seed, ids, draw, self.threads, pin=on_gpu)
        return Ahead(draw, moved(found.values, self.device), found.states) if on_gpu else found


def join(parts: Sequence[Kept], device: str) -> Batch:
    """Shards as one batch on the device, bit for bit as they were read; a GPU gets bytes, a quarter of the floats."""
    ids = tuple(name for part in parts for name in part.ids)
    labels = torch.cat([part.labels for part in parts])
    if device.startswith("cuda"):
        images = torch.cat([on_gpu(moved(part.pixels, device)) for part in parts])
    else:
        images = torch.cat([unit(part.pixels) for part in parts]) if len(parts) > 1 else unit(parts[0].pixels)
    return Batch(ids, images.to(device), labels.to(device))


def on_gpu(pixels: Tensor) -> Tensor:
    """Bytes as the floats that the CPU's division makes of them: a GPU multiplies by 1 / 255, which is not the same."""
    if pixels.dtype != torch.uint8:
        return pixels
    table = unit(torch.arange(256, dtype=torch.uint8)).to(pixels.device)
    return table[pixels.to(torch.int32)]


def moved(values: Tensor, device: str) -> Tensor:
    """A tensor on the GPU, copied from page-locked memory beside whatever the GPU computes; there when this returns."""
    here = torch.device(device)
    side = torch.cuda.Stream(here)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        there = (values if values.is_pinned() else values.pin_memory()).to(here, non_blocking=True)
    side.synchronize()
    there.record_stream(torch.cuda.current_stream(here))
    return there
