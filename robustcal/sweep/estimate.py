"""What a plan will cost: model passes counted exactly, time from a short measurement of each model; for ``--dry-run``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from ..cell import SHARD, Cell
from ..clip.classifier import LogitClassifier
from ..noise import Noise
from ..registry import load_plugin_file
from ..types import Threat
from .hardware import threads_for, workers_for
from .meter import Meter
from .outline import Outline, random_classifier
from .plan import Plan, Request, make_plan
from .preflight import try_attacks
from .run import SEARCH_DTYPES, make_attack, out_of_memory
from .sizes import auto_batch
from .verify import TOP
from .worker import Worker, pick

#: Measured sizes of records on the disk: a shard's footer, a row's scalars, and one class of its logits.
SHARD_BYTES, ROW_BYTES, CLASS_BYTES = 8800, 54, 4.8
#: Seconds that one measurement should take at most; several are made of each architecture.
PATIENCE = 2.0


@dataclass(frozen=True)
class ModelCost:
    """Passes of a model over all its cells, and the seconds of one worker for them."""

    spec: str
    forwards: int
    backwards: int
    seconds: float
    forward: float  #: seconds per image, at the largest resolution
    gradient: float  #: seconds of a forward pass and an input gradient per image
    stand_in: str | None  #: the architecture that was timed in its place


@dataclass(frozen=True)
class AttackCost:
    """An attack's radii, and the most passes it spends on one sample of any data set."""

    spec: str
    eps: tuple[str, ...]
    forwards: int
    backwards: int


@dataclass(frozen=True)
class DatasetSize:
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
    forwards: int
    backwards: int
    workers: int
    seconds: float  #: with so many workers
    eps: tuple[str, ...]
    models: tuple[ModelCost, ...]
    attacks: tuple[AttackCost, ...]
    datasets: tuple[DatasetSize, ...]
    device: str
    precision: str
    hardware: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)  #: spec -> what is missing and how to get it


def outlook(
    request: Request, *, device: str, precision: str, batch_size: int | None = None, workers: int | None = None,
    threads: int | None = None,
) -> Outlook:  # fmt: skip
    """The cost of a request where this process runs. What is not here is stood in for.

    Args:
        workers: how many there will be; by default as many as `bench` would start here.
        threads: of one worker; by default the cores divided among them.
    """
    device, precision, hardware = pick(device, precision)
    outline = Outline()
    for file in request.plugins:
        load_plugin_file(file)
    request = replace(request, precision=precision)
    plan = make_plan(request, open_source=outline.open_source, identify=outline.identify)
    try_attacks(plan)
    count = len(workers_for(device, plan.shards, workers))
    with threads_set(threads or threads_for(device, count)):
        cost = estimate(plan, device, precision, batch_size, count, outline)
    return replace(cost, hardware=hardware, absent=dict(outline.absent))


def estimate(
    plan: Plan, device: str, precision: str, batch_size: int | None, workers: int, outline: Outline | None = None
) -> Outlook:
    """The cost of a plan: model passes counted exactly, seconds on this device with so many workers.

    Args:
        outline: what stands in for models that are not here.
    """
    models = tuple(model_cost(plan, model, device, precision, batch_size, outline) for model in plan.distinct("model"))
    return Outlook(
        cells=len(plan.cells),
        samples=plan.samples,
        shards=plan.shards,
        bytes=bytes_of(plan),
        forwards=sum(row.forwards for row in models),
        backwards=sum(row.backwards for row in models),
        workers=workers,
        seconds=sum(row.seconds for row in models) / workers,
        eps=tuple(dict.fromkeys(cell.eps for cell in plan.cells if cell.eps != "0")),
        models=models,
        attacks=tuple(attack_cost(plan, attack) for attack in plan.distinct("attack")),
        datasets=tuple(dataset_size(plan, dataset) for dataset in plan.distinct("dataset")),
        device=device,
        precision=precision,
    )


# -- counting --------------------------------------------------------------------------------------------------------
@cache
def passes_of(attack: str, classes: int, returns: str = "last") -> tuple[float, float]:
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
        make_attack(attack, lambda spec: linear)(meter, images, label, Threat(1e-6, returns=returns), Noise(0, ["0"]))
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


def attack_cost(plan: Plan, attack: str) -> AttackCost:
    cells = [cell for cell in plan.cells if cell.attack == attack]
    forwards, backwards = max(passes_of_cell(cell) for cell in cells)
    return AttackCost(attack, tuple(dict.fromkeys(cell.eps for cell in cells)), int(forwards), int(backwards))


def dataset_size(plan: Plan, dataset: str) -> DatasetSize:
    cell = next(cell for cell in plan.cells if cell.dataset == dataset)
    return DatasetSize(dataset, cell.n, len(cell.classnames), cell.resolution)


# -- timing ----------------------------------------------------------------------------------------------------------
def model_cost(
    plan: Plan, model: str, device: str, precision: str, batch_size: int | None, outline: Outline | None
) -> ModelCost:
    """A model's passes over all its cells, and the seconds of one worker for them; measured once at each resolution."""
    arch = outline.architecture(model) if outline else None
    timed: dict[int, tuple[float, float]] = {}
    forwards = backwards = seconds = 0.0
    for cell in (cell for cell in plan.cells if cell.model == model):
        side = cell.resolution
        if side not in timed:
            timed[side] = _measured(plan, cell, arch, device, precision, batch_size, outline.timed if outline else {})
        (forward, both), (looks, gradients) = timed[side], passes_of_cell(cell)
        forwards += cell.n * looks
        backwards += cell.n * gradients
        seconds += cell.n * (max(0.0, looks - gradients) * forward + gradients * both)
    forward, both = timed[max(timed)]
    return ModelCost(model, int(forwards), int(backwards), seconds, forward, both, arch)


def _measured(
    plan: Plan, cell: Cell, arch: str | None, device: str, precision: str, batch_size: int | None,
    kept: dict[tuple[str | None, int], tuple[float, float]],
) -> tuple[float, float]:  # fmt: skip
    """Seconds of a cell's model per image; models that are not here and have one architecture are measured once."""
    key = (arch, cell.resolution)
    if arch and key in kept:
        return kept[key]
    source = plan.sources[cell.dataset]
    images = source.dataset.read(source.shard(0, min(cell.rows(0), batch_size or SHARD))).images.to(device)
    images = images[: batch_size or auto_batch(images, device)]
    if arch:
        classifier = random_classifier(arch, len(cell.classnames)).to(device)
    else:
        classifier = Worker(plan, device).classifier(cell.model, cell)
    kept[key] = seconds_per_image(classifier, images, SEARCH_DTYPES[precision])
    return kept[key]


def seconds_per_image(
    classifier: torch.nn.Module, images: torch.Tensor, search: torch.dtype = torch.float32
) -> tuple[float, float]:
    """Measured (forward, forward + input gradient) seconds per image of one worker.

    The batch is made smaller until its gradient takes about `PATIENCE`, and halved where memory runs out.
    """
    meter = Meter(classifier, len(images), search)

    def forward(images: torch.Tensor) -> None:
        with torch.no_grad():
            meter(images)

    def gradient(images: torch.Tensor) -> None:
        x = images.clone().requires_grad_(True)
        torch.autograd.grad(meter(x).sum(), x)

    alone = _time(gradient, images[:1])
    images = images[: max(1, int(PATIENCE / alone))]
    try:
        return _time(forward, images) / len(images), _time(gradient, images) / len(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not out_of_memory(error):
            raise
    return seconds_per_image(classifier, images[: len(images) // 2], search)


def _time(work: Callable[[torch.Tensor], None], images: torch.Tensor, repeats: int = 3) -> float:
    """The best of some calls, in seconds; fewer calls where they take longer than `PATIENCE` together."""
    best, begin = float("inf"), time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        work(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begin > PATIENCE:
            break
    return best


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
