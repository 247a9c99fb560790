"""What a plan will cost: model passes counted exactly, time from a short measurement of each model; for ``--dry-run``."""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import torch

from ..cell import SHARD, Cell
from ..clip.classifier import LogitClassifier
from ..noise import Noise
from ..registry import load_plugin_file
from ..types import Threat
from .hardware import Hardware, pick, threads_for, threads_set, workers_for
from .meter import Meter
from .outline import Outline, random_classifier
from .plan import Plan, Request, make_plan
from .run import SEARCH_DTYPES, make_attack, out_of_memory
from .sizes import usual_batch
from .verify import TOP
from .worker import Worker

#: Measured sizes of records on the disk: a shard's footer, a row's scalars, and one class of its logits.
SHARD_BYTES, ROW_BYTES, CLASS_BYTES = 8800, 54, 4.8
#: Seconds that one pass over a batch should take at most; each of its measurements makes three.
PATIENCE = 1.0


class ModelCost(NamedTuple):
    """Passes of a model over all its cells, and the seconds of one worker for them."""

    spec: str
    forwards: int
    backwards: int
    seconds: float
    forward: float  #: seconds per image, at the largest resolution
    gradient: float  #: seconds of a forward pass and an input gradient per image
    stand_in: str | None  #: the architecture that was timed in its place


class AttackCost(NamedTuple):
    """The most passes that an attack spends on one sample of any data set."""

    spec: str
    forwards: int
    backwards: int


class DatasetSize(NamedTuple):
    """How many samples, classes and pixels a data set has in a plan."""

    spec: str
    n: int
    classes: int
    resolution: int


@dataclass(frozen=True)
class Outlook:
    """The cost of a plan on one machine."""

    cells: int
    samples: int
    shards: int
    bytes: int
    workers: int
    eps: tuple[str, ...]
    models: tuple[ModelCost, ...]
    attacks: tuple[AttackCost, ...]
    datasets: tuple[DatasetSize, ...]
    hardware: Hardware
    absent: Mapping[str, str]  #: spec -> what is missing and how to get it

    @property
    def seconds(self) -> float:
        """Of so many workers."""
        return sum(row.seconds for row in self.models) / self.workers


def outlook(
    request: Request, *, device: str, precision: str, batch_size: int | None = None, workers: int | None = None,
    threads: int | None = None,
) -> Outlook:  # fmt: skip
    """The cost of a request where this process runs. What is not here is stood in for.

    Args:
        workers: how many there will be; by default as many as `bench` would start here.
        threads: of one worker; by default the cores divided among them.
    """
    hardware, outline = pick(device, precision), Outline()
    for file in request.plugins:
        load_plugin_file(file)
    request = replace(request, precision=hardware.precision)
    plan = make_plan(request, open_source=outline.open_source, identify=outline.identify)
    count = len(workers_for(hardware.device, plan.shards, workers))
    timed: dict[tuple[str, int], tuple[float, float]] = {}
    with threads_set(threads or threads_for(hardware.device, count)):
        models = tuple(model_cost(plan, model, hardware, batch_size, outline, timed) for model in plan.distinct("model"))
    first = [next(cell for cell in plan.cells if cell.dataset == dataset) for dataset in plan.distinct("dataset")]
    most = {
        attack: max(passes_of_cell(cell) for cell in plan.cells if cell.attack == attack) for attack in plan.distinct("attack")
    }
    return Outlook(
        cells=len(plan.cells),
        samples=plan.samples,
        shards=plan.shards,
        bytes=bytes_of(plan),
        workers=count,
        eps=tuple(dict.fromkeys(cell.eps for cell in plan.cells if cell.eps != "0")),
        models=models,
        attacks=tuple(AttackCost(attack, *map(int, most[attack])) for attack in plan.distinct("attack")),
        datasets=tuple(DatasetSize(cell.dataset, cell.n, len(cell.classnames), cell.resolution) for cell in first),
        hardware=hardware,
        absent=dict(outline.absent),
    )


# -- counting --------------------------------------------------------------------------------------------------------
@cache
def passes_of(attack: str, classes: int) -> tuple[float, float]:
    """(forward passes, input gradients) that an attack spends on one sample, by running it on a small linear model.

    Exact for attacks with a fixed budget; an upper bound for those that stop early or drop finished samples: at a radius
    this small none is finished.
    """
    weight = torch.randn(classes, 3 * 16 * 16, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay his own
        layer = torch.nn.Linear(3 * 16 * 16, classes)
        layer.weight.data, layer.bias.data = weight, torch.zeros(classes)
        linear = LogitClassifier(torch.nn.Sequential(torch.nn.Flatten(), layer), [""] * classes)
        images = torch.full((1, 3, 16, 16), 0.5)
        meter = Meter(linear, 1)
        label = linear(images).argmax(1)
        make_attack(attack, lambda spec: linear)(meter, images, label, Threat(1e-6), Noise(0, ["0"]))
    return float(meter.counts["forwards"].sum()), float(meter.counts["backwards"].sum())


def passes_of_cell(cell: Cell) -> tuple[float, float]:
    """(forwards, input gradients) on one sample of a cell; one of the forwards is the judge's."""
    classes = min(max(4, len(cell.classnames)), 10)  # more classes change no budget: targets are at most nine
    forwards, backwards = passes_of(cell.attack, classes)
    return forwards + 1, backwards


def bytes_of(plan: Plan) -> int:
    """Size of the plan's records on the disk, from the number of classes: see the constants."""
    rows = sum(cell.n * (ROW_BYTES + CLASS_BYTES * min(TOP, len(cell.classnames))) for cell in plan.cells)
    return int(rows + plan.shards * SHARD_BYTES)


# -- timing ----------------------------------------------------------------------------------------------------------
def model_cost(
    plan: Plan, model: str, hardware: Hardware, batch_size: int | None, outline: Outline,
    timed: dict[tuple[str, int], tuple[float, float]],
) -> ModelCost:  # fmt: skip
    """A model's passes over all its cells, and the seconds of one worker for them.

    Args:
        timed: (model or the architecture that stands in for it, resolution) -> seconds per image, each measured once.
    """
    stand_in = outline.architecture(model)
    cells = [cell for cell in plan.cells if cell.model == model]
    forwards = backwards = seconds = 0.0
    for cell in cells:
        key = stand_in or model, cell.resolution
        if key not in timed:
            timed[key] = _measured(plan, cell, stand_in, hardware, batch_size)
        (forward, both), (looks, gradients) = timed[key], passes_of_cell(cell)
        forwards += cell.n * looks
        backwards += cell.n * gradients
        seconds += cell.n * (max(0.0, looks - gradients) * forward + gradients * both)
    forward, both = timed[stand_in or model, max(cell.resolution for cell in cells)]
    return ModelCost(model, int(forwards), int(backwards), seconds, forward, both, stand_in)


def _measured(plan: Plan, cell: Cell, stand_in: str | None, hardware: Hardware, batch_size: int | None) -> tuple[float, float]:
    """Seconds of a cell's model per image."""
    source, device = plan.sources[cell.dataset], hardware.device
    usual = SHARD if device.startswith("cuda") else usual_batch(cell.resolution)
    images = source.dataset.read(source.shard(0, min(cell.rows(0), batch_size or usual))).images.to(device)
    if stand_in:
        classifier = random_classifier(stand_in, len(cell.classnames)).to(device)
    else:
        classifier = Worker(plan, device).classifier(cell.model, cell)
    return seconds_per_image(classifier, images, SEARCH_DTYPES[hardware.precision])


def seconds_per_image(
    classifier: torch.nn.Module, images: torch.Tensor, search: torch.dtype = torch.float32
) -> tuple[float, float]:
    """Measured (forward, forward + input gradient) seconds per image of one worker: the best of three.

    The batch is made smaller until its gradient takes about `PATIENCE`, and halved where memory runs out.
    """
    meter = Meter(classifier, len(images), search)

    def forward(images: torch.Tensor) -> None:
        with torch.no_grad():
            meter(images).sum().item()  # waits for a GPU

    def gradient(images: torch.Tensor) -> None:
        x = images.clone().requires_grad_(True)
        torch.autograd.grad(meter(x).sum(), x)[0].sum().item()

    alone = timeit.timeit(partial(gradient, images[:1]), number=2) / 2
    images = images[: max(1, int(PATIENCE / alone))]
    try:
        times = [min(timeit.repeat(partial(work, images), repeat=3, number=1)) for work in (forward, gradient)]
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not out_of_memory(error):
            raise
        images = images[: len(images) // 2]
    else:
        return times[0] / len(images), times[1] / len(images)
    return seconds_per_image(classifier, images, search)
