"""A worker: claims any missing shard of a plan, computes it, writes it, until none is left."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import registry
from ..records.store import Run, claim_name
from ..types import UserError
from .plan import SHARD, Plan
from .reading import Unreadable, read
from .run import make_attack, run_shard, to_device

#: Seconds between two looks at shards that others hold.
POLL = 1.0


@dataclass
class Worker:
    """What one process keeps between shards: the model, text head and images last used.

    Args:
        first: where in the plan to start, so that several workers begin with different models.
        alive: asked before every shard; False ends the work (the driver is gone).
        spent: seconds that the last shard took, models and images already loaded.
    """

    plan: Plan
    run: Run
    device: str = "cpu"
    batch_size: int | None = None
    first: int = 0
    alive: Callable[[], bool] = lambda: True
    spent: float = 0.0
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def work(self) -> Iterator[Mapping[str, Any]]:
        """Compute shards until none is missing; yields an event after each.

        Cells that nobody works on come first, so that workers load different models. Shards that others hold are
        waited for, and computed here should their worker die or hang. A dataset with images that do not decode is
        left unfinished, with one event.
        """
        cells = self.plan.cells[self.first :] + self.plan.cells[: self.first]
        failed: set[str] = set()
        while cells and self.alive():
            busy = False
            for polite in (True, False):
                for cell in cells:
                    if cell["dataset"] in failed or (polite and cell["id"] in self._cells_in_work()):
                        continue
                    try:
                        for event in self._work_on(cell):
                            busy = True
                            yield event
                    except Unreadable as trouble:
                        failed.add(cell["dataset"])
                        yield {"event": "unreadable", "dataset": cell["dataset"], "cell": cell["id"], "message": str(trouble)}
            cells = [cell for cell in cells if cell["dataset"] not in failed and self.run.missing(cell)]
            if cells and not busy:
                time.sleep(POLL)

    def _work_on(self, cell: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        for shard in self.run.missing(cell):
            if not self.alive():
                return
            if self.run.claim(cell["id"], shard):
                with self.run.claims.renewing(claim_name(cell["id"], shard)) as sign_of_life:
                    records, skipped = self.compute(cell, shard, sign_of_life)
                    self.run.write_shard(cell["id"], shard, records, skipped)
                yield shard_event(cell, shard, records, skipped, self.spent)

    def _cells_in_work(self) -> set[str]:
        return {name.rpartition("-")[0] for name in self.run.claims.held()}

    def compute(
        self, cell: Mapping[str, Any], shard: int, sign_of_life: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, Any], list[str]]:
        """The records of one shard of one cell, and the ids of samples left out because they do not decode.

        Args:
            sign_of_life: called before every pass through the model.

        Raises:
            Unreadable: an image does not decode, and the cell does not say that such images are skipped.
        """
        source = self.plan.sources[cell["id"]]
        indices = source.indices[shard * SHARD : (shard + 1) * SHARD].tolist()

        def fetch() -> tuple[Any, list[str]]:
            batch, skipped = read(source.dataset, indices, cell.get("skip_unreadable", False))
            return to_device(batch, self.device), skipped

        images, skipped = self._keep("images", (cell["dataset"], shard, len(source.indices)), fetch)
        sign_of_life()
        classifier = self.classifier(cell["model"], cell)
        attack = make_attack(cell["attack"], lambda spec: self.classifier(spec, cell, slot="surrogate"))
        batch_size = self.batch_size or auto_batch(images.images, self.device)
        start = time.monotonic()
        with watched(classifier, sign_of_life):
            records = run_shard(cell, images, classifier, attack, batch_size)
        self.spent = time.monotonic() - start
        return records, skipped

    def classifier(self, spec: str, cell: Mapping[str, Any], slot: str = "model") -> torch.nn.Module:
        """The classifier of a model for a cell's classes and prompts; weights and text head are built once."""
        model = self._keep(slot, spec, lambda: on_device(registry.models.build(spec), self.device))
        key = (spec, cell["dataset"])
        build = lambda: model.classifier(cell["classnames"], cell["templates"])  # noqa: E731
        classifier = self._keep(slot + "/classifier", key, build)
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


def shard_event(
    cell: Mapping[str, Any], shard: int, records: Mapping[str, Any], skipped: Sequence[str], seconds: float
) -> dict[str, Any]:
    """What an engine tells its caller about a finished shard."""
    counts = {"n": len(records["id"]), "skipped": len(skipped)}
    return {"event": "shard", "cell": cell["id"], "shard": shard, **counts, "seconds": seconds}


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


def pick(device: str, precision: str) -> tuple[str, str, str]:
    """The device, the attack's precision, and the hardware's name, where this process runs."""
    device = pick_device(device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({platform.machine()})"
    return device, pick_precision(precision, device), name


def pick_precision(precision: str, device: str) -> str:
    """``auto`` -> bf16 search on GPUs that have it, fp32 elsewhere. Verification is always fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
