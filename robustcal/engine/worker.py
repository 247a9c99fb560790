"""A worker: claims any missing shard of a plan, computes it, writes it, until none is left."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping

import torch

from .. import registry
from ..store import CLAIM_SECONDS, Run
from ..types import UserError
from .plan import SHARD, Plan
from .run import make_attack, run_shard, to_device


@dataclass
class Worker:
    """What one process keeps between shards: the model, text head and images last used.

    Args:
        first: where in the plan to start, so that several workers begin with different models.
        alive: asked before every shard; False ends the work (the driver is gone).
    """

    plan: Plan
    run: Run
    device: str = "cpu"
    batch_size: int | None = None
    first: int = 0
    alive: Callable[[], bool] = lambda: True
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def work(self) -> Iterator[Mapping[str, Any]]:
        """Compute every shard that nobody else holds; yields an event after each."""
        cells = self.plan.cells[self.first :] + self.plan.cells[: self.first]
        for cell in cells:
            for shard in range(cell["shards"]):
                if not self.alive():
                    return
                if self.run.claim(cell["id"], shard):
                    with self._holding(cell["id"], shard):
                        records = self.compute(cell, shard)
                        self.run.write_shard(cell["id"], shard, records)
                    yield {"event": "shard", "cell": cell["id"], "shard": shard, "n": len(records["id"])}

    def compute(self, cell: Mapping[str, Any], shard: int) -> dict[str, Any]:
        """The records of one shard of one cell."""
        source = self.plan.sources[cell["id"]]
        indices = source.indices[shard * SHARD : (shard + 1) * SHARD]
        images = self._keep(
            "images", (cell["dataset"], shard, len(source.indices)),
            lambda: to_device(source.dataset.read(indices.tolist()), self.device),
        )  # fmt: skip
        classifier = self.classifier(cell["model"], cell)
        attack = make_attack(cell["attack"], lambda spec: self.classifier(spec, cell, slot="surrogate"))
        return run_shard(cell, images, classifier, attack, self.batch_size or auto_batch(images.images, self.device))

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
    def _holding(self, cell: str, shard: int) -> Iterator[None]:
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(CLAIM_SECONDS / 5):
                self.run.renew(cell, shard)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            self.run.release(cell, shard)


def on_device(model: Any, device: str) -> Any:
    """Move a model's towers to the device, where it has any, before its text head is built."""
    if isinstance(getattr(model, "clip", None), torch.nn.Module):
        model.clip.to(device)
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


def pick_precision(precision: str, device: str) -> str:
    """``auto`` -> bf16 search on GPUs that have it, fp32 elsewhere. Verification is always fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
