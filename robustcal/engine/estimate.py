"""What a plan will cost: model passes counted exactly, time from a short measurement of each model."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Iterator

import torch

from ..classifier import LogitClassifier
from ..noise import Noise
from ..types import Threat
from .local import threads_for
from .meter import Meter
from .outline import Outline, random_classifier
from .plan import Plan
from .run import make_attack
from .samples import SHARD
from .verify import TOP
from .worker import Worker

#: Measured sizes of zstd-compressed records: a shard's footer, a row's scalars, and one class of its logits.
SHARD_BYTES, ROW_BYTES, CLASS_BYTES = 5000, 120, 6.5


@lru_cache(maxsize=None)
def passes_of(attack: str, classes: int, returns: str = "last") -> tuple[float, float]:
    """(forward passes, input gradients) that an attack spends on one sample, by running it on a small linear model.

    Exact for attacks with a fixed budget; an estimate for those that stop early or drop finished samples.
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


def passes(plan: Plan) -> dict[str, tuple[float, float]]:
    """(forwards, input gradients) per model over all its cells; one more forward per sample is the judge's."""
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for cell in plan.cells:
        classes = min(max(4, len(cell["classnames"])), 10)  # more classes change no budget: targets are at most nine
        forwards, backwards = passes_of(cell["attack"], classes)
        total[cell["model"]][0] += cell["n"] * (forwards + 1)
        total[cell["model"]][1] += cell["n"] * backwards
    return {model: (counts[0], counts[1]) for model, counts in total.items()}


def seconds_per_image(classifier: torch.nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """Measured (forward, forward + input gradient) seconds per image of one worker."""

    def forward() -> None:
        with torch.no_grad():
            classifier(images)

    def gradient() -> None:
        x = images.clone().requires_grad_(True)
        torch.autograd.grad(classifier(x).sum(), x)

    return tuple(_time(work, str(images.device)) / len(images) for work in (forward, gradient))


def _time(work: Any, device: str, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def bytes_of(plan: Plan) -> int:
    """Size of the plan's records on the disk, from the number of classes: see the constants."""
    rows = sum(cell["n"] * (ROW_BYTES + CLASS_BYTES * min(TOP, len(cell["classnames"]))) for cell in plan.cells)
    return int(rows + sum(cell["shards"] for cell in plan.cells) * SHARD_BYTES)


@contextmanager
def threads_of(device: str, workers: int) -> Iterator[None]:
    """As many threads as each of so many workers would have."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_for(device, workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def estimate(
    plan: Plan, device: str, batch_size: int | None, workers: int, outline: Outline | None = None
) -> dict[str, Any]:
    """The cost of a plan: cells, samples, shards, bytes, passes, and seconds on this device with so many workers.

    Args:
        outline: what stands in for models that are not here.
    """
    counts = passes(plan)
    first = {cell["model"]: cell for cell in reversed(plan.cells)}
    timed: dict[Any, tuple[float, float]] = {}
    seconds = 0.0
    for model, (forwards, backwards) in counts.items():
        cell, source = first[model], plan.sources[first[model]["id"]]
        arch = outline.architecture(model) if outline else None
        key = (arch, cell["resolution"]) if arch else model
        if key not in timed:
            images = source.dataset.read(source.indices[: min(batch_size or 32, SHARD)].tolist()).images.to(device)
            stand_in = arch and random_classifier(arch, len(cell["classnames"])).to(device)
            with threads_of(device, workers):
                timed[key] = seconds_per_image(stand_in or Worker(plan, None, device).classifier(model, cell), images)
        forward, both = timed[key]
        seconds += max(0.0, forwards - backwards) * forward + backwards * both
    return {
        "cells": len(plan.cells),
        "samples": plan.samples,
        "shards": sum(cell["shards"] for cell in plan.cells),
        "bytes": bytes_of(plan),
        "forwards": int(sum(f for f, _ in counts.values())),
        "backwards": int(sum(b for _, b in counts.values())),
        "workers": workers,
        "seconds": seconds / workers,
    }
