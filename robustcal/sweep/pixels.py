"""Images of a data set decoded once and kept as bytes, in memory and in a folder that the workers of a machine share.

What is kept is what `Dataset.read` returned, bit for bit: float pixels that are k / 255 for whole k are kept as k and made
again by the same division; images that are not (averaged or generated ones) are kept as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..types import Batch

#: Bytes of pixels that one worker keeps in memory, and that the workers of one machine keep on its disk.
MEMORY, DISK = 1 << 30, 64 << 30
#: The disk is left at least so much room.
ROOM = 4 << 30
PREFIX = "robustcal-pixels-"


class Key(NamedTuple):
    """Which images: data set and content, order of the samples, shard, number of rows, whether unreadable ones are skipped."""

    dataset: str
    data: str
    order: str
    shard: int
    rows: int
    skip: bool

    @property
    def file(self) -> str:
        """The name of their file."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:32] + ".safetensors"


class Kept(NamedTuple):
    """Images as they are kept: `pixels` uint8, or float32 where they are no bytes; and the ids that were skipped."""

    ids: tuple[str, ...]
    pixels: Tensor
    labels: Tensor
    skipped: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return self.pixels.numel() * self.pixels.element_size()

    def batch(self) -> Batch:
        """The batch that was read, bit for bit."""
        return Batch(self.ids, unit(self.pixels), self.labels)


def keep(batch: Batch, skipped: list[str]) -> Kept:
    """A batch that was read, as bytes where that loses nothing."""
    pixels = batch.images.mul(255).round_().to(torch.uint8)
    exact = torch.equal(unit(pixels), batch.images)
    return Kept(batch.ids, pixels if exact else batch.images.clone(), batch.labels, tuple(skipped))


def unit(pixels: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1], by the division of `datasets.images.to_unit`; floats are returned as a copy."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels.clone()


@dataclass
class Pixels:
    """What one worker keeps. `folder`: shared with the other workers of this machine; None: memory alone."""

    folder: Path | None = None
    memory: int = MEMORY
    disk: int = DISK
    _held: OrderedDict[Key, Kept] = field(default_factory=OrderedDict)

    def get(self, key: Key) -> Kept | None:
        """The images, if they are kept."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        found = self._read(self.folder, key) if self.folder else None
        if found is not None:
            self._hold(key, found)
        return found

    def put(self, key: Key, kept: Kept) -> None:
        """Keep images, as long as there is room: the longest unused ones leave the memory, those on the disk stay."""
        self._hold(key, kept)
        if self.folder:
            self._write(self.folder, key, kept)

    def _hold(self, key: Key, kept: Kept) -> None:
        self._held[key] = kept
        while sum(one.bytes for one in self._held.values()) > self.memory and len(self._held) > 1:
            self._held.popitem(last=False)

    def _read(self, folder: Path, key: Key) -> Kept | None:
        # Absent, or removed by another driver at this moment: decoded again.
        with suppress(Exception), safe_open(folder / key.file, "pt") as file:
            facts = json.loads(file.metadata()["kept"])
            return Kept(tuple(facts["ids"]), file.get_tensor("pixels"), file.get_tensor("labels"), tuple(facts["skipped"]))
        return None

    def _write(self, folder: Path, key: Key, kept: Kept) -> None:
        with suppress(OSError):  # no room, or no folder any more: it is a cache
            used = sum(entry.stat().st_size for entry in os.scandir(folder))
            if used + kept.bytes > self.disk or shutil.disk_usage(folder).free - kept.bytes < ROOM:
                return
            path = folder / key.file
            beside = path.with_suffix(f".{os.getpid()}")
            facts = {"kept": json.dumps({"ids": kept.ids, "skipped": kept.skipped})}
            save_file({"pixels": kept.pixels.contiguous(), "labels": kept.labels.contiguous()}, beside, facts)
            os.replace(beside, path)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the pixels of one sweep on this machine's own disk, gone afterwards; folders of killed drivers go too."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = leftover.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists() and Path("/proc").exists():
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
