"""What a plan will cost: model passes counted exactly, time from a short measurement of each model; for ``--dry-run``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from ..clip.classifier import LogitClassifier
from ..noise import Noise
from ..types import Threat
from .local import plan_again, threads_for, workers_for
from .meter import Meter
from .outline import Outline, random_classifier
from .plan import Plan
from .preflight import try_attacks
from .run import SEARCH_DTYPES, make_attack, out_of_memory
from .samples import SHARD
from .verify import TOP
from .worker import Worker, auto_batch, pick

#: Measured sizes of records on the disk: a shard's footer, a row's scalars, and one class of its logits.
SHARD_BYTES, ROW_BYTES, CLASS_BYTES = 8800, 54, 4.8
#: Seconds that one measurement should take at most; several are made of each architecture.
PATIENCE = 2.0


def outlook(
    request: Mapping[str, Any], *, device: str, precision: str, batch_size: int | None = None, workers: int | None = None,
    threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The plan of a request and its cost where this process runs, as plain data. What is not here is stood in for.

    Args:
        request: keyword arguments of `make_plan`, and `plugins`; see `local.plan_again`.
        workers: how many there will be; by default as many as `bench` would start here.
        threads: of one worker; by default the cores divided among them.

    Returns:
        `estimate`'s, and `device`, `hardware`, `precision`, `absent` (spec -> what is missing and how to get it).
    """
    device, precision, hardware = pick(device, precision)
    outline = Outline()
    plan = plan_again({**request, "precision": precision}, open_source=outline.open_source, identify=outline.identify)
    try_attacks(plan)
    count = len(workers_for(device, sum(cell["shards"] for cell in plan.cells), workers))
    with threads_set(threads or threads_for(device, count)):
        cost = estimate(plan, device, precision, batch_size, count, outline)
    return {**cost, "device": device, "hardware": hardware, "precision": precision, "absent": dict(outline.absent)}


def estimate(
    plan: Plan, device: str, precision: str, batch_size: int | None, workers: int, outline: Outline | None = None
) -> dict[str, Any]:
    """The cost of a plan: cells, samples, shards, bytes, passes, and seconds on this device with so many workers.

    `models`, `attacks` and `datasets` are its rows: passes and measured seconds of each model, passes on one sample of
    each attack, size of each data set.

    Args:
        outline: what stands in for models that are not here.
    """
    models = [model_row(plan, model, device, precision, batch_size, outline) for model in _distinct(plan, "model")]
    return {
        "cells": len(plan.cells),
        "samples": plan.samples,
        "shards": sum(cell["shards"] for cell in plan.cells),
        "bytes": bytes_of(plan),
        "forwards": sum(row["forwards"] for row in models),
        "backwards": sum(row["backwards"] for row in models),
        "workers": workers,
        "seconds": sum(row["seconds"] for row in models) / workers,
        "eps": list(dict.fromkeys(cell["eps"] for cell in plan.cells if cell["eps"] != "0")),
        "models": models,
        "attacks": [attack_row(plan, attack) for attack in _distinct(plan, "attack")],
        "datasets": [dataset_row(plan, dataset) for dataset in _distinct(plan, "dataset")],
    }


def _distinct(plan: Plan, axis: str) -> list[str]:
    return list(dict.fromkeys(cell[axis] for cell in plan.cells))


# -- counting --------------------------------------------------------------------------------------------------------
@cache
def passes_of(attack: str, classes: int, returns: str = "last") -> tuple[float, float]:
    """(forward passes, input gradients) that an attack spends on one sample, by running it on a small linear model.

    Exact for attacks with a fixed budget; an upper bound for those that stop early or drop finished samples: at a radius
    this small none is finished.
    """
    torch.manual_seed(0)
    weight = torch.randn(classes, 3 * 16 * 16)
    linear = LogitClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, classes)), [""] * classes)
    linear.module[1].weight.data, linear.module[1].bias.data = weight, torch.zeros(classes)
    images = torch.full((1, 3, 16, 16), 0.5)
    meter = Meter(linear, 1)
    label = linear(images).argmax(1)
    make_attack(attack, lambda spec: linear)(meter, images, label, Threat(1e-6, returns=returns), Noise(0, ["0"]))
    return float(meter.counts["forwards"].sum()), float(meter.counts["backwards"].sum())


def passes_of_cell(cell: Mapping[str, Any]) -> tuple[float, float]:
    """(forwards, input gradients) on one sample of a cell; one of the forwards is the judge's."""
    classes = min(max(4, len(cell["classnames"])), 10)  # more classes change no budget: targets are at most nine
    forwards, backwards = passes_of(cell["attack"], classes)
    return forwards + 1, backwards


def bytes_of(plan: Plan) -> int:
    """Size of the plan's records on the disk, from the number of classes: see the constants."""
    rows = sum(cell["n"] * (ROW_BYTES + CLASS_BYTES * min(TOP, len(cell["classnames"]))) for cell in plan.cells)
    return int(rows + sum(cell["shards"] for cell in plan.cells) * SHARD_BYTES)


def attack_row(plan: Plan, attack: str) -> dict[str, Any]:
    """An attack's radii, and the most passes it spends on one sample of any data set."""
    cells = [cell for cell in plan.cells if cell["attack"] == attack]
    forwards, backwards = max(passes_of_cell(cell) for cell in cells)
    eps = list(dict.fromkeys(cell["eps"] for cell in cells))
    return {"spec": attack, "eps": eps, "forwards": int(forwards), "backwards": int(backwards)}


def dataset_row(plan: Plan, dataset: str) -> dict[str, Any]:
    """How many samples, classes and pixels a data set has in the plan."""
    cell = next(cell for cell in plan.cells if cell["dataset"] == dataset)
    return {"spec": dataset, "n": cell["n"], "classes": len(cell["classnames"]), "resolution": cell["resolution"]}


# -- timing ----------------------------------------------------------------------------------------------------------
def model_row(
    plan: Plan, model: str, device: str, precision: str, batch_size: int | None, outline: Outline | None
) -> dict[str, Any]:
    """A model's passes over all its cells, and the seconds of one worker for them.

    Measured once at each resolution; `forward` and `gradient` are seconds per image at the largest.
    """
    arch = outline.architecture(model) if outline else None
    timed: dict[int, tuple[float, float]] = {}
    total = {"forwards": 0.0, "backwards": 0.0, "seconds": 0.0}
    for cell in (cell for cell in plan.cells if cell["model"] == model):
        side = cell["resolution"]
        if side not in timed:
            timed[side] = _measured(plan, cell, arch, device, precision, batch_size, outline.timed if outline else {})
        (forward, both), (forwards, backwards) = timed[side], passes_of_cell(cell)
        total["forwards"] += cell["n"] * forwards
        total["backwards"] += cell["n"] * backwards
        total["seconds"] += cell["n"] * (max(0.0, forwards - backwards) * forward + backwards * both)
    forward, both = timed[max(timed)]
    counts = {name: int(total[name]) for name in ("forwards", "backwards")}
    return {"spec": model, **counts, "seconds": total["seconds"], "forward": forward, "gradient": both, "stand_in": arch}


def _measured(
    plan: Plan, cell: Mapping[str, Any], arch: str | None, device: str, precision: str, batch_size: int | None, kept: dict
) -> tuple[float, float]:
    """Seconds of a cell's model per image; models that are not here and have one architecture are measured once."""
    key = (arch, cell["resolution"])
    if arch and key in kept:
        return kept[key]
    source = plan.sources[cell["id"]]
    images = source.dataset.read(source.indices[: min(batch_size or SHARD, SHARD)].tolist()).images.to(device)
    images = images[: batch_size or auto_batch(images, device)]
    if arch:
        classifier = random_classifier(arch, len(cell["classnames"])).to(device)
    else:
        classifier = Worker(plan, None, device).classifier(cell["model"], cell)
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
        return tuple(_time(work, images) / len(images) for work in (forward, gradient))
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
