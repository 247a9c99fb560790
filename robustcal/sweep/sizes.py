"""How many images go through a model at once: what was asked for, or what the device's memory allows by measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .. import registry
from ..cell import SHARD, Cell
from .declared import attack_meta

#: No batch is larger: a GPU is busy long before.
LARGEST = 1024
#: The share of free memory that a batch may be expected to take.
SHARE = 0.7


@dataclass(frozen=True)
class CudaMemory:
    """The memory of one GPU, in bytes."""

    device: str

    def free(self) -> int:
        """What could be taken now, what torch holds without using it included."""
        free, _ = torch.cuda.mem_get_info(torch.device(self.device))
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def used(self) -> int:
        """What tensors take now; the peak begins anew from here."""
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        """The most that tensors took since."""
        return torch.cuda.max_memory_allocated(self.device)


@dataclass
class Sizes:
    """The batch size of each model, attack and resolution.

    Args:
        asked: the user's own; it is halved where memory runs out, and never exceeded.
        memory: of a device where the best size is measured; None: a CPU, where 128 images (32 large ones) are as fast as any.
    """

    asked: int | None = None
    memory: CudaMemory | None = None
    _found: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _most: dict[tuple[str, str, int], int] = field(default_factory=dict)  # above it memory ran out

    def of(self, cell: Cell) -> int:
        """Images at once in a cell."""
        usual = self.asked or usual_batch(cell.resolution)
        return min(self._found.get(_kind(cell), usual), self._most.get(_kind(cell), LARGEST if self.asked is None else usual))

    def shards(self, cell: Cell) -> int:
        """Shards that are attacked together, so that batches of this size are full."""
        return -(-self.of(cell) // SHARD)

    @contextmanager
    def measured(self, cell: Cell, rows: int) -> Iterator[None]:
        """Inside, a cell is attacked for the first time with so many rows at once: what it takes decides how many follow."""
        if self.asked or self.memory is None or _kind(cell) in self._found or _looks_at_its_batch(cell):
            yield
            return
        before = self.memory.used()
        yield
        each = max(1, (self.memory.peak() - before) // max(1, min(rows, self.of(cell))))
        room = int(SHARE * self.memory.free() / each)
        self._found[_kind(cell)] = max(min(room, LARGEST) // 32 * 32, min(self.of(cell), max(1, room)))

    def ran_out(self, cell: Cell, size: int) -> None:
        """Memory ran out above this size: no later batch of the kind is larger."""
        self._most[_kind(cell)] = size


def usual_batch(side: int) -> int:
    """The batch to begin with, by the side of the images in pixels."""
    return SHARD if side <= 64 else 32


def _kind(cell: Cell) -> tuple[str, str, int]:
    return cell.model, cell.attack, cell.resolution


def _looks_at_its_batch(cell: Cell) -> bool:
    """Whether an attack's result depends on the batch: then its size does not depend on the memory."""
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec(cell.attack))
    return bool(attack_meta(plugin, arguments).get("batch_dependent", False))
