"""How well reading, attacking and writing overlap: a model that sleeps in every pass, a data set that sleeps for every shard.

    python benchmarks/overlap.py                  # 0.1 s a pass, 0.1 s a shard, 16 shards
    python benchmarks/overlap.py --read 0.05

Both release the interpreter, as a GPU and a decoder do. With perfect overlap a shard takes the longer of the two, without any
their sum; `ratio` is the time per shard over the longer one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from robustcal import register
from robustcal.cell import SHARD
from robustcal.clip.classifier import LogitClassifier
from robustcal.records.store import Run
from robustcal.sweep.plan import Request, Sweep, make_plan
from robustcal.sweep.shift import work
from robustcal.sweep.worker import Worker
from robustcal.types import Batch

#: Shards that are not timed: imports, and the first reading, which nothing comes before.
WARM = 3
SLEEP = {"read": 0.1, "pass": 0.1, "shards": 16}


class SleepyNet(torch.nn.Module):
    """Ten classes from the mean of an image; each pass takes its time."""

    def forward(self, images):
        time.sleep(SLEEP["pass"])
        return images.mean((1, 2, 3))[:, None] * torch.arange(10.0)


class SleepyModel:
    fingerprint = "sleepy"

    def classifier(self, classnames, templates=()):
        return LogitClassifier(SleepyNet(), classnames)


@register.model
def sleepy():
    """A model that sleeps."""
    return SleepyModel()


class SleepySet:
    """Grey images that take their time."""

    name, templates, task, resolution, identity = "asleep", ("{}",), "single", 8, "asleep"

    def __init__(self):
        count = SLEEP["shards"] * SHARD
        self.labels = np.arange(count) % 10
        self.classnames = [f"class {label}" for label in range(10)]
        self.ids = [f"asleep/{number:05d}" for number in range(count)]

    def read(self, indices):
        time.sleep(SLEEP["read"] * len(indices) / SHARD)
        images = torch.full((len(indices), 3, 8, 8), 0.5)
        return Batch(tuple(self.ids[i] for i in indices), images, torch.from_numpy(self.labels[list(indices)]))


@register.dataset
def asleep():
    """A data set that sleeps."""
    return SleepySet()


def measure() -> dict[str, float]:
    """Seconds per shard of one worker on a cell of one pass a shard: the judge's, of the attack `noise`."""
    plan = make_plan(Request((Sweep.of("sleepy", "noise", "asleep", "1/255"),)))
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {})
        for cell in plan.cells:
            run.add_cell(cell)
        times = [time.perf_counter() for _ in work(Worker(plan), run)]
    each = (times[-1] - times[WARM]) / (len(times) - 1 - WARM)
    longer = max(SLEEP["read"], SLEEP["pass"])
    return {"seconds_per_shard": each, "longer": longer, "sum": SLEEP["read"] + SLEEP["pass"], "ratio": each / longer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=float, default=0.1, help="seconds to read a shard")
    parser.add_argument("--pass", dest="pass_", type=float, default=0.1, help="seconds of a pass through the model")
    parser.add_argument("--shards", type=int, default=16)
    args = parser.parse_args()
    SLEEP.update({"read": args.read, "pass": args.pass_, "shards": args.shards})
    torch.set_num_threads(1)
    print(json.dumps({name: round(value, 4) for name, value in measure().items()}))


if __name__ == "__main__":
    main()
