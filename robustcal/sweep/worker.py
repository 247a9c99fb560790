"""A worker: computes shards of a plan, and keeps between them what is needed again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from .. import registry
from ..cell import Cell
from ..clip import resnet
from ..noise import Noise
from ..records import costs
from ..records.store import Run
from ..types import reason_of
from .events import CellFailed, ShardDone, Working
from .hardware import cores, keep_memory
from .loading import Loaded, Loader
from .pixels import Pixels
from .plan import Plan
from .reading import Unreadable
from .run import Columns, Judged, judge_pieces, make_attack, records_of
from .sizes import CudaMemory, Sizes

#: Bytes of weights that are kept loaded on a CPU, and the share of a GPU's memory.
WEIGHTS, WEIGHTS_SHARE = 256 << 20, 0.1


class Computed(NamedTuple):
    """What came out of one shard."""

    records: Columns
    skipped: list[str]  #: ids of samples left out because they do not decode
    seconds: float  #: that it took, models and images already loaded
    alike: tuple[str, ...] = ()  #: sentences about classes that the text head cannot tell apart
    defence: tuple[str, ...] = ()  #: of a test-time defence: that it is "randomised", or "adapting" without chance

    def write(self, run: Run, cell: Cell, shard: int) -> ShardDone:
        """Put it into a run."""
        run.write_shard(cell.id, shard, self.records, self.skipped)
        costs.note(run.path, cell.id, shard, self.seconds)
        run.remark(cell.id, "classes", self.alike)
        run.remark(cell.id, "defence", self.defence)
        return ShardDone(cell.id, shard, len(self.records["id"]), len(self.skipped), self.seconds)


class Attacked(NamedTuple):
    """Shards of a cell that have been attacked and judged, and are still to be measured."""

    loaded: Loaded
    pieces: list[Judged]
    seconds: float
    alike: tuple[str, ...]
    defence: tuple[str, ...]

    def measured(self) -> list[Computed]:
        """What came out of each shard."""
        records, found, start = records_of(self.pieces), [], 0
        for part in self.loaded.parts:
            rows, start = slice(start, start + len(part.ids)), start + len(part.ids)
            own = {name: column[rows] for name, column in records.items()}
            share = self.seconds * len(part.ids) / len(self.loaded.batch)
            found.append(Computed(own, list(part.skipped), share, self.alike, self.defence))
        return found


@dataclass
class Held:
    """A model that is loaded, and its classifiers by data set."""

    model: Any
    classifiers: dict[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def bytes(self) -> float:
        """Size of the weights; infinite where they are no module's."""
        modules = list(self.classifiers.values())
        if not modules or not isinstance(modules[0], torch.nn.Module):
            return float("inf")
        return sum(part.numel() * part.element_size() for part in (*modules[0].parameters(), *modules[0].buffers()))


@dataclass
class Worker:
    """What one process keeps between shards: models, text heads and images last used. `shift.work` puts it to work.

    Args:
        batch_size: images per pass, instead of what `Sizes` finds.
        first: where in the plan to start, so that several workers begin with different models.
        alive: asked before every shard; False ends the work (the driver is gone).
        number, live: told about once a second how far the worker of this number is within its shard.
        pixels: the images that are kept; default: its own, in memory.
    """

    plan: Plan
    device: str = "cpu"
    batch_size: int | None = None
    first: int = 0
    alive: Callable[[], bool] = lambda: True
    number: int = 0
    live: Callable[[Working], None] = lambda event: None
    pixels: Pixels = field(default_factory=Pixels)
    _held: dict[str, OrderedDict[str, Held]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        on_gpu = self.device.startswith("cuda")
        if self.device == "cpu":
            keep_memory()
        self.sizes = Sizes(self.batch_size, CudaMemory(self.device) if on_gpu else None)
        self.loader = Loader(self.plan, self.device, self.pixels, drawing_threads(self.device))
        self.weights = WEIGHTS_SHARE * torch.cuda.mem_get_info(torch.device(self.device))[1] if on_gpu else WEIGHTS

    def compute(self, cell: Cell, shard: int, sign_of_life: Callable[[], None] = lambda: None) -> Computed:
        """The records of one shard of one cell.

        Args:
            sign_of_life: called before every pass through the model.

        Raises:
            Unreadable: an image does not decode, and the cell does not say that such images are skipped.
        """
        loaded, _ = self.loader.load(cell, (shard,))
        return self.attack(cell, loaded, sign_of_life).measured()[0]

    def attack(self, cell: Cell, loaded: Loaded, sign_of_life: Callable[[], None] = lambda: None) -> Attacked:
        """Attack and judge what was loaded."""
        sign_of_life()
        classifier = self.classifier(cell.model, cell)
        attack = make_attack(cell.attack, lambda spec: self.classifier(spec, cell, slot="surrogate"))
        streams: list[Noise] = []

        def noise_of(rows: slice) -> Noise:
            streams.append(loaded.noise(cell.seed, self.loader.draw(cell), rows))
            return streams[-1]

        start, size = time.monotonic(), self.sizes.of(cell)
        with watched(classifier, sign_of_life), self.sizes.measured(cell, len(loaded.batch)):
            pieces, fits = judge_pieces(cell, loaded.batch, classifier, attack, size, noise_of)
        if fits < size:
            self.sizes.ran_out(cell, fits)
        self.loader.learn(cell, streams[0].first)
        told = (tuple(getattr(classifier, name, ())) for name in ("alike", "defence"))
        return Attacked(loaded, pieces, time.monotonic() - start, *told)

    def classifier(self, spec: str, cell: Cell, slot: str = "model") -> torch.nn.Module:
        """The classifier of a model for a cell's classes and prompts; weights and text head are built once."""
        held = self._model(spec, slot)
        if cell.dataset not in held.classifiers:
            held.classifiers[cell.dataset] = held.model.classifier(cell.classnames, cell.templates)
        classifier = held.classifiers[cell.dataset]
        return classifier.to(self.device) if isinstance(classifier, torch.nn.Module) else classifier

    def _model(self, spec: str, slot: str) -> Held:
        """A model; those that were used longest ago are let go before another is loaded, if there would be too many."""
        loaded = self._held.setdefault(slot, OrderedDict())
        if spec not in loaded:
            while loaded and sum(one.bytes for one in loaded.values()) + max(one.bytes for one in loaded.values()) > self.weights:
                loaded.popitem(last=False)
            loaded[spec] = Held(on_device(registry.models.build(spec), self.device))
        loaded.move_to_end(spec)
        return loaded[spec]


def failed(cell: Cell, error: Exception) -> CellFailed:
    """Why a cell cannot be computed."""
    if isinstance(error, Unreadable):
        return CellFailed(cell.id, cell.title, str(error), dataset=cell.dataset)
    return CellFailed(cell.id, cell.title, reason_of(error))


def drawing_threads(device: str) -> int:
    """Threads that draw start noise: a CPU worker's own, of a GPU's worker its share of the cores."""
    if device.startswith("cuda"):
        return max(1, min(16, cores() // max(1, torch.cuda.device_count())))
    return torch.get_num_threads()


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


def on_device(model: Any, device: str) -> Any:
    """Move a model's towers to the device, where it has any, before its text head is built: as they run fastest there.

    Convolutions run channels-last, and a residual network with its batch norms folded into them: see `clip/resnet.py`.
    """
    for clip in (getattr(part, "clip", None) for part in (model, getattr(model, "reference", None))):
        if isinstance(clip, torch.nn.Module):
            visual: Any = clip.to(device).visual
            visual = resnet.folded(visual) if resnet.is_plain(visual) else visual
            clip.visual = visual.to(memory_format=torch.channels_last)
    return model
