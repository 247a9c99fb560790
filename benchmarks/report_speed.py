"""How long a report takes: invented records of a given number, read from disk, to cells.csv with intervals.

    python benchmarks/report_speed.py --records 1000000
    python benchmarks/report_speed.py --bootstrap 50000

The first writes a run directory (not timed), then makes cells.csv from it in a fresh process and prints seconds and
peak memory. The second times one cell's bootstrap alone, every registered metric in turn.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

TIMED = """
import resource, sys, time
start = time.perf_counter()
from robustcal.report.frame import write_cells_csv
from robustcal.records.store import Run
path = write_cells_csv(Run.open(sys.argv[1]))
rows = sum(1 for _ in open(path)) - 1
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{rows} cells, {time.perf_counter() - start:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time,"
      f" peak {used.ru_maxrss / 2**20:.2f} GiB")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, help="total number of records")
    parser.add_argument("--per-cell", type=int, default=10_000, help="samples in a cell")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--bootstrap", type=int, metavar="N", help="time the bootstrap of one cell of N records")
    options = parser.parse_args()
    if options.bootstrap:
        bootstrap(options.bootstrap, options.classes)
    if options.records:
        report(options.records, options.per_cell, options.classes)


def bootstrap(n: int, classes: int) -> None:
    """Time 1,000 resamples of one cell: the metrics of cells.csv together, then every metric alone."""
    from synthetic_run import records

    from robustcal.registry import register
    from robustcal.report import stats

    attacked, clean = (
        {name: np.asarray(column) for name, column in records(n, classes, pull, 60, 0).items()} for pull in (1.0, 0.0)
    )
    for metrics in (list(stats.CELL_METRICS), *([entry.name] for entry in register.metric.entries())):
        start = time.perf_counter()
        found = stats.summarise(attacked, metrics, clean=clean)
        took = time.perf_counter() - start
        print(f"{took:7.2f} s  {n} records x 1000 resamples: {', '.join(metrics)} ({len(found)} values)", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def report(total: int, per_cell: int, classes: int) -> None:
    """Write a run of about `total` records and time cells.csv in a process of its own."""
    from synthetic_run import make_run

    cells = max(1, round(total / per_cell))
    datasets = [f"set{i}" for i in range(max(1, cells // 10))]  # 2 models x (clean + 2 attacks x 2 radii)
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder) / "run", models=("clip", "ucat"), datasets=datasets, n=per_cell, classes=classes)
        made = sum(json.loads(p.read_text())["n"] for p in Path(folder).glob("run/records/*/cell.json"))
        print(f"{made} records in {len(datasets)} datasets x 2 models x 5 attacked or clean sets", flush=True)
        subprocess.run([sys.executable, "-c", TIMED, str(Path(folder) / "run")], check=True)


if __name__ == "__main__":
    main()
