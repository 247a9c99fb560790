"""What a plan will cost: model passes counted exactly, time from a short measurement of each model."""

from __future__ import annotations

import time
from collections import defaultdict
from functools import lru_cache
from typing import Any, Mapping

import torch

from ..classifier import LogitClassifier
from ..noise import Noise
from ..types import Threat
from .meter import Meter
from .plan import SHARD, Plan
from .run import make_attack
from .worker import Worker


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
        forwards, backwards = passes_of(cell["attack"], max(4, len(cell["classnames"])))
        total[cell["model"]][0] += cell["n"] * (forwards + 1)
        total[cell["model"]][1] += cell["n"] * backwards
    return {model: (counts[0], counts[1]) for model, counts in total.items()}


def seconds_per_image(plan: Plan, cell: Mapping[str, Any], run: Any, device: str, batch_size: int | None) -> tuple[float, float]:
    """Measured (forward, forward + input gradient) seconds per image of a cell's model, on its own data, one worker."""
    worker = Worker(plan, run, device, batch_size)
    classifier = worker.classifier(cell["model"], cell)
    source = plan.sources[cell["id"]]
    count = min(batch_size or 32, SHARD, len(source.indices))
    images = source.dataset.read(source.indices[:count].tolist()).images.to(device)

    def forward() -> None:
        with torch.no_grad():
            classifier(images)

    def gradient() -> None:
        x = images.clone().requires_grad_(True)
        torch.autograd.grad(classifier(x).sum(), x)

    return _time(forward, device) / count, _time(gradient, device) / count


def _time(work: Any, device: str, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def estimate(plan: Plan, device: str, batch_size: int | None, workers: int) -> dict[str, Any]:
    """The cost of a plan: cells, samples, shards, passes and seconds on this device with so many workers."""
    counts = passes(plan)
    first = {cell["model"]: cell for cell in reversed(plan.cells)}
    seconds = 0.0
    for model, (forwards, backwards) in counts.items():
        forward, both = seconds_per_image(plan, first[model], None, device, batch_size)
        seconds += max(0.0, forwards - backwards) * forward + backwards * both
    return {
        "cells": len(plan.cells),
        "samples": plan.samples,
        "shards": sum(cell["shards"] for cell in plan.cells),
        "forwards": int(sum(f for f, _ in counts.values())),
        "backwards": int(sum(b for _, b in counts.values())),
        "workers": workers,
        "seconds": seconds / workers,
    }
