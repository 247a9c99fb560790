"""A worker: claims any missing shard of a plan, computes it, writes it, until none is left."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from .. import registry
from ..cell import SHARD, Cell
from ..records.store import Run, claim_name
from ..types import Batch, UserError
from .engine import Hardware
from .events import CellFailed, Event, ShardDone, Working
from .plan import Plan
from .reading import Unreadable, read
from .run import make_attack, reason_of, run_shard, to_device

#: Seconds between two looks at shards that others hold.
POLL = 1.0


class Computed(NamedTuple):
    """What came out of one shard."""

    records: dict[str, Any]
    skipped: list[str]  #: ids of samples left out because they do not decode
    seconds: float  #: that it took, models and images already loaded
    alike: tuple[str, ...] = ()  #: sentences about classes that the text head cannot tell apart
    defence: tuple[str, ...] = ()  #: of a test-time defence: that it is "randomised", or "adapting" without chance

    def write(self, run: Run, cell: Cell, shard: int) -> ShardDone:
        """Put it into a run."""
        run.write_shard(cell.id, shard, self.records, self.skipped)
        run.remark(cell.id, "classes", self.alike)
        run.remark(cell.id, "defence", self.defence)
        return ShardDone(cell.id, shard, len(self.records["id"]), len(self.skipped), self.seconds)


@dataclass
class Pulse:
    """Called before every pass of a shard: renews the claim, and tells about once a second how far it is."""

    worker: Worker
    cell: Cell
    shard: int
    alive: Callable[[], None]
    passes: int = -1  # the first call comes before the first pass
    last: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        self.alive()
        self.passes += 1
        now = time.monotonic()
        if now - self.last > 1:
            self.last = now
            batches = -(-self.cell.rows(self.shard) // (self.worker.batch_size or SHARD))
            self.worker.live(Working(self.worker.number, self.cell.id, self.shard, self.passes, batches))


@dataclass
class Worker:
    """What one process keeps between shards: the model, text head and images last used.

    Args:
        first: where in the plan to start, so that several workers begin with different models.
        alive: asked before every shard; False ends the work (the driver is gone).
        number, live: told about once a second how far the worker of this number is within its shard.
    """

    plan: Plan
    device: str = "cpu"
    batch_size: int | None = None
    first: int = 0
    alive: Callable[[], bool] = lambda: True
    number: int = 0
    live: Callable[[Working], None] = lambda event: None
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def work(self, run: Run) -> Iterator[Event]:
        """Compute shards until none is missing; yields an event after each.

        Cells that nobody works on come first, so that workers load different models. Shards that others hold are
        waited for, and computed here should their worker die or hang. A cell that fails is left unfinished, with one
        event; so are all cells of a dataset with images that do not decode.
        """
        cells = self.plan.cells[self.first :] + self.plan.cells[: self.first]
        while cells and self.alive():
            busy = False
            for polite in (True, False):
                for cell in cells:
                    if polite and cell.id in cells_in_work(run):
                        continue
                    for event in self._work_on(cell, run):
                        busy = True
                        yield event
            failed = run.failures()
            cells = tuple(cell for cell in cells if cell.id not in failed and run.missing(cell))
            if cells and not busy:
                time.sleep(POLL)

    def _work_on(self, cell: Cell, run: Run) -> Iterator[Event]:
        for shard in run.missing(cell):
            if not self.alive() or cell.id in run.failures():
                return
            if run.claim(cell, shard):
                with run.claims.renewing(claim_name(cell.id, shard)) as alive:
                    computed = self.attempt(cell, shard, Pulse(self, cell, shard, alive))
                    if isinstance(computed, Computed):
                        done = computed.write(run, cell, shard)
                if isinstance(computed, CellFailed):
                    yield give_up(self.plan, run, computed)
                    return
                yield done

    def attempt(self, cell: Cell, shard: int, sign_of_life: Callable[[], None] = lambda: None) -> Computed | CellFailed:
        """`compute`, or why it cannot."""
        try:
            return self.compute(cell, shard, sign_of_life)
        except Unreadable as trouble:
            return CellFailed(cell.id, cell.title, str(trouble), dataset=cell.dataset)
        except Exception as error:
            return CellFailed(cell.id, cell.title, reason_of(error))

    def compute(self, cell: Cell, shard: int, sign_of_life: Callable[[], None] = lambda: None) -> Computed:
        """The records of one shard of one cell.

        Args:
            sign_of_life: called before every pass through the model.

        Raises:
            Unreadable: an image does not decode, and the cell does not say that such images are skipped.
        """
        source = self.plan.sources[cell.dataset]
        indices = source.shard(shard, cell.rows(shard))

        def fetch() -> tuple[Batch, list[str]]:
            batch, skipped = read(source.dataset, indices, cell.identity.skip_unreadable)
            return to_device(batch, self.device), skipped

        images, skipped = self._keep("images", (cell.dataset, shard, len(indices)), fetch)
        sign_of_life()
        classifier = self.classifier(cell.model, cell)
        attack = make_attack(cell.attack, lambda spec: self.classifier(spec, cell, slot="surrogate"))
        batch_size = self.batch_size or auto_batch(images.images, self.device)
        start = time.monotonic()
        with watched(classifier, sign_of_life):
            records = run_shard(cell, images, classifier, attack, batch_size)
        told = (tuple(getattr(classifier, name, ())) for name in ("alike", "defence"))
        return Computed(records, skipped, time.monotonic() - start, *told)

    def classifier(self, spec: str, cell: Cell, slot: str = "model") -> torch.nn.Module:
        """The classifier of a model for a cell's classes and prompts; weights and text head are built once."""
        model = self._keep(slot, spec, lambda: on_device(registry.models.build(spec), self.device))
        key = (spec, cell.dataset)
        classifier = self._keep(f"{slot}/classifier", key, lambda: model.classifier(cell.classnames, cell.templates))
        return classifier.to(self.device) if isinstance(classifier, torch.nn.Module) else classifier

    def _keep(self, slot: str, key: Any, make: Callable[[], Any]) -> Any:
        if slot not in self._kept or self._kept[slot][0] != key:
            self._kept.pop(slot, None)  # free the old one before the new one is made
            self._kept[slot] = (key, make())
        return self._kept[slot][1]


@contextmanager
def watched(classifier: Any, sign_of_life: Callable[[], None]) -> Iterator[None]:
    """Call `sign_of_life` before every pass through a classifier that is a module."""
    if not isinstance(classifier, torch.nn.Module):
        yield
        return
    hook = classifier.register_forward_pre_hook(lambda *_: sign_of_life())
    try:
        yield
    finally:
        hook.remove()


def cells_in_work(run: Run) -> set[str]:
    """The cells of which somebody computes a shard."""
    return {name.rpartition("-")[0] for name in run.claims.held()}


def give_up(plan: Plan, run: Run, failure: CellFailed) -> CellFailed:
    """Keep workers from trying a cell again; and where images are to blame, all unfinished cells of their dataset."""
    for cell in plan.cells:
        if cell.id == failure.cell or (failure.dataset and cell.dataset == failure.dataset and run.missing(cell)):
            run.fail(cell.id, failure.reason)
    return failure


def on_device(model: Any, device: str) -> Any:
    """Move a model's towers to the device, where it has any, before its text head is built.

    Convolutions run channels-last: 1.4 times the input gradients a second for the tiny tower on a CPU.
    """
    if isinstance(getattr(model, "clip", None), torch.nn.Module):
        model.clip.to(device)
        model.clip.visual.to(memory_format=torch.channels_last)
    return model


def auto_batch(images: torch.Tensor, device: str) -> int:
    """A batch size from the image size and the device's memory; halved later if it was too large."""
    pixels = images[0].numel()
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return max(1, min(len(images), int(free / (pixels * 4 * 400))))
    return max(1, min(len(images), 128 if pixels <= 3 * 64 * 64 else 32))


def pick_device(device: str) -> str:
    """``auto`` -> the first GPU, else the CPU.

    Raises:
        UserError: if a device is asked for that this machine lacks.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{device}' cannot be used here ({reason}); try --device cpu or auto") from None
    return device


def pick(device: str, precision: str) -> Hardware:
    """The device, the attack's precision, and the hardware's name, where this process runs."""
    device = pick_device(device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({platform.machine()})"
    return Hardware(device, pick_precision(precision, device), name)


def pick_precision(precision: str, device: str) -> str:
    """``auto`` -> bf16 search on GPUs that have it, fp32 elsewhere. Verification is always fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
