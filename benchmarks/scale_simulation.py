"""What a run of up to a million shards costs before and after the attacks: the real planner and store, invented records.

    python benchmarks/scale_simulation.py 1000 10000 100000 1000000 --rows 32 --folder FOLDER --out results/scale/simulation.csv

Each size runs in a process of its own, so that its peak memory is its own. Cells have 168 shards, as the sixteen test
sets have on average (344 128 images / 128 / 16). Shards are written by the store once and then copied with another cell
and index in their footers: a million fsyncs would measure the disk. A sweep's shards have 128 rows; with fewer, what
grows with the number of shards is the same, and what grows with the samples (bytes, reading, metrics) is less. Measured are

    plan      make_plan: specs -> cells with their content hashes
    add       Run.add_cell: cell.json of every cell, flushed to disk
    look      sweep.engine.missing_shards: what is left to do, one look at each folder
    claim     Run.claim and release of missing shards, in one process
    write     Run.write_shard, flushed to disk
    resume    Run.discard_damaged: the footer of every shard checked
    read      Run.read of every cell, the columns of cells.csv, checksums verified
    frame     write_cells_csv: reading and all metrics with 1000 bootstrap draws
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from robustcal import cell as nouns
from robustcal.records import store
from robustcal.records.shardfile import seal
from robustcal.records.store import Run, claim_name
from robustcal.registry import register
from robustcal.report.frame import SCALAR_COLUMNS, write_cells_csv
from robustcal.sweep import samples
from robustcal.sweep.engine import missing_shards
from robustcal.sweep.plan import Plan, Request, Sweep, make_plan
from robustcal.sweep.verify import measure as judged

SHARDS, CLASSES = 168, 10
#: Modules that know how many samples a shard has.
SIZED = (nouns, samples, store)
#: Shards of a run -> how many data sets and models; six attacks each.
SHAPES = {1_000: (1, 1), 10_000: (2, 5), 100_000: (10, 10), 1_000_000: (16, 62)}
ATTACKS = ["clean", "noise", "pgd", "cw", "apgd", "square"]
SAMPLE = 1000  # claims and writes that are timed


class Invented:
    """A dataset of labels and ids, without images."""

    templates, task, resolution, classnames = ("a photo of a {}",), "single", 32, tuple(f"class {c}" for c in range(CLASSES))

    def __init__(self, number: int):
        self.name = self.identity = f"invented-{number}"
        size = SHARDS * nouns.SHARD
        self.labels = np.arange(size) % CLASSES
        self.ids = [f"{self.name}/test/{index:05d}" for index in range(size)]

    def read(self, indices):
        raise NotImplementedError("records are invented, nothing is read")


@register.dataset
def invented(*, number: int = 0):
    """A dataset of labels and ids."""
    return Invented(number)


@register.model(identity=lambda **parameters: str(parameters))
def nothing(*, number: int = 0):
    """A model that is never built."""


def columns(ids: list[str], seed: int) -> dict:
    """Invented records of one shard."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(0, 3, (len(ids), CLASSES)).astype(np.float32))
    label = torch.from_numpy(np.arange(len(ids)) % CLASSES)
    right = torch.from_numpy(np.flatnonzero(draw.random(len(ids)) < 0.6))
    logits[right, label[right]] = logits[right].amax(1) + 1
    rest = ("linf", "l2", "forwards", "backwards", "zero_gradients")
    return {
        "id": ids, **judged(logits, label, logits / 100), **{name: draw.integers(0, 2, len(ids)) * 1.0 for name in rest},
        "flags": [""] * len(ids),
    }  # fmt: skip


def stamped(data: bytes, origin: tuple[str, int], cell: str, shard: int) -> bytes:
    """The bytes of a shard with another cell and index of the same length in its footer."""
    def spelled(cell: str, shard: int) -> list[bytes]:
        pairs = (("robustcal.cell", cell), ("robustcal.shard", str(shard)))
        return [b"\x18" + bytes([len(k)]) + k.encode() + b"\x18" + bytes([len(v)]) + v.encode() for k, v in pairs]

    for old, new in zip(spelled(*origin), spelled(cell, shard)):
        data = data.replace(old, new)
    return seal(data)


def fill(run: Run, plan: Plan) -> float:
    """Give every cell all its shards; returns seconds per shard of the store's own writing, measured on some."""
    cell, rows = plan.cells[0], nouns.SHARD
    first, ids = cell.id, plan.sources[cell.dataset].first(cell.n)
    start = time.perf_counter()
    for shard in range(SHARDS):
        run.write_shard(first, shard, columns(ids[shard * rows : (shard + 1) * rows], shard))
    own = (time.perf_counter() - start) / SHARDS
    whole = [run.shard_path(first, shard, rows).read_bytes() for shard in range(SHARDS)]
    for cell in plan.cells[1:]:
        for shard in range(SHARDS):
            run.shard_path(cell.id, shard, rows).write_bytes(stamped(whole[shard], (first, shard), cell.id, shard))
    return own


def measure(size: int, folder: Path, read: bool, frame: bool) -> dict[str, float]:
    """All phases at one size: seconds and peak memory in MB after each."""
    found: dict[str, float] = {"shards": 0, "rows": nouns.SHARD}

    def timed(name, work):
        start = time.perf_counter()
        value = work()
        found[name + "_s"] = time.perf_counter() - start
        found[name + "_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{size} {name} {found[name + '_s']:.2f} s", file=sys.stderr, flush=True)
        return value

    sets, models = SHAPES[size]
    names = [[f"{kind}:number={i}" for i in range(count)] for kind, count in (("nothing", models), ("invented", sets))]
    request = Request((Sweep.of(names[0], ATTACKS, names[1], "1/255"),))
    found["base_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plan = timed("plan", lambda: make_plan(request))
    found["cells"], found["shards"] = len(plan.cells), plan.shards
    shutil.rmtree(folder, ignore_errors=True)
    run = Run.create(folder, {"command": "simulation"})
    timed("add", lambda: [run.add_cell(cell) for cell in plan.cells])
    assert timed("look_empty", lambda: missing_shards(plan, run)) == found["shards"]
    some = [(cell, shard) for cell in plan.cells for shard in range(SHARDS)][:SAMPLE]
    timed("claim", lambda: [run.claim(cell, shard) and run.claims.release(claim_name(cell.id, shard)) for cell, shard in some])
    found["claim_ms_each"] = found.pop("claim_s") / len(some) * 1e3
    found["write_ms_each"] = fill(run, plan) * 1e3
    assert timed("look_full", lambda: missing_shards(plan, run)) == 0
    assert timed("resume", lambda: sum(len(run.discard_damaged(cell.id)) for cell in plan.cells)) == 0
    found["bytes"] = sum(run.shard_path(plan.cells[0].id, shard, nouns.SHARD).stat().st_size for shard in range(SHARDS)) / SHARDS
    if read:
        rows = timed("read", lambda: sum(len(run.read(cell.id, SCALAR_COLUMNS)["id"]) for cell in plan.cells))
        assert rows == found["shards"] * nouns.SHARD
    if frame:
        timed("frame", lambda: write_cells_csv(run))
    shutil.rmtree(folder)
    return {key: round(value, 4) for key, value in found.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sizes", nargs="+", type=int, choices=sorted(SHAPES))
    arguments.add_argument("--folder", type=Path, default=Path("/tmp/robustcal-scale"))
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--rows", type=int, default=nouns.SHARD, help="samples of a shard (default: a sweep's)")
    arguments.add_argument("--read-up-to", type=int, default=10**6, help="sizes at which every cell is read, too")
    arguments.add_argument("--frame-up-to", type=int, default=10**6, help="sizes at which cells.csv is made, too")
    arguments.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    for module in SIZED:
        module.SHARD = options.rows
    if options.one:
        size = options.sizes[0]
        print(json.dumps(measure(size, options.folder, size <= options.read_up_to, size <= options.frame_up_to)))
        return
    rows = []
    for size in options.sizes:
        limits = ["--rows", str(options.rows), "--read-up-to", str(options.read_up_to), "--frame-up-to", str(options.frame_up_to)]
        more = ["--one", "--folder", str(options.folder), *limits]
        done = subprocess.run([sys.executable, __file__, str(size), *more], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        if options.out:
            write_csv(options.out, rows)


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per size; a phase that was not measured at a size is empty there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
