"""How often 95 % intervals hold the truth, on invented worlds where it is known: what is far from 95 % is a fault.

    python benchmarks/interval_coverage.py --runs 100 --out results/interval_coverage.csv

A line for each value, world and number of samples: the true value, how often its interval holds it, the mean width; for a
calibration error, how often plain bootstrap percentiles hold it and the mean absolute errors of `ece` and `ece_debiased`.
Cells, averages over five data sets, H, differences of two models on the same samples, and a ratio.

    python benchmarks/interval_coverage.py --compare --runs 100 --out results/comparison_level.csv

Models on the same samples instead: how often "their ECE differs" has p < 0.05, and how often one of three is marked best,
where they do not differ and where they do.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from invented_worlds import BROKEN, CELLS, PAIRS, SETS, pair, random, sample, truths

from robustcal.metrics.accuracy import harmonic_mean
from robustcal.metrics.bins import bin_edges, bin_index
from robustcal.metrics.calibration import binned, calibration
from robustcal.metrics.weighted import Means
from robustcal.report.catalogue import Metric
from robustcal.report.resample import Resamples
from robustcal.report.stats import Interval, Replicates, average, difference, harmonic, interval, mark, replicates

PARTS = ("ece", "overconfidence", "underconfidence", "gap")
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="simulated runs of each world")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--compare", action="store_true", help="models on the same samples")
    parser.add_argument("--only", default="", help="worlds and kinds with this text")
    parser.add_argument("--out", type=Path, help="a CSV file for the same table")
    options = parser.parse_args()
    tables = (compared,) if options.compare else (cells, averages, differences, ratios)
    rows: list[Row] = []
    for table in tables:
        for row in table(options.runs, options.resamples, options.only):
            if not rows:
                print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
            print(f"| {' | '.join(row.values())} |", flush=True)
            rows.append(row)
            if options.out:
                with open(options.out, "w", newline="") as file:
                    writer = csv.DictWriter(file, list(row), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


class Coverage:
    """How often intervals hold a true value, and how wide they are."""

    def __init__(self, true: float):
        self.true, self.held, self.width = true, 0, 0.0
        self.runs = 0

    def add(self, found: Interval) -> None:
        """Count one interval; one without limits holds everything."""
        unknown = not np.isfinite(found.lo)
        self.held += bool(unknown or found.lo - 1e-12 <= self.true <= found.hi + 1e-12)
        self.width += 0.0 if unknown else found.hi - found.lo
        self.runs += 1

    def row(self, kind: str, value: str, world: str, n: str, **more: str) -> Row:
        """The line of the table."""
        return {
            "kind": kind, "value": value, "world": world, "n": n, "true": f"{self.true:.4f}",
            "covers": f"{self.held / self.runs:.1%}", "width": f"{self.width / self.runs:.4f}",
            "percentiles": "", "error of ece": "", "of ece_debiased": "", **more,
        }  # fmt: skip


@cache
def kept(n: int, count: int, seed: int, key: str) -> Resamples:
    """Resamples that several runs share: what they add to an interval is small, and making them is slow."""
    return Resamples(n, count, seed, key)


def resampled(n: int, count: int, run: int, place: int = 0) -> Resamples:
    """The resamples of one run; cells at another place are other samples."""
    return kept(n, count, run % 10, str(place))


# -- one cell ----------------------------------------------------------------------------------------------------
def cells(runs: int, resamples: int, only: str) -> Iterator[Row]:
    """Calibration errors and the gap of one cell."""
    for worlds, sizes in CELLS:
        for world, n in ((world, n) for n in sizes for world in worlds if only in f"cell {world}"):
            true = truths(world)
            found = {name: Coverage(true[name]) for name in PARTS}
            plain, errors, better = Coverage(true["ece"]), [], []
            for run in range(runs):
                records = sample(world, n, random(run, n, world))
                numbers = cell(records, resampled(n, resamples, run))
                for name, cover in found.items():
                    cover.add(numbers.interval(name))
                plain.add(interval(numbers.values["ece"], percentiles(records, resamples, run)))
                errors.append(abs(numbers.values["ece"] - true["ece"]))
                better.append(abs(numbers.values["ece_debiased"] - true["ece"]))
            more = {
                "percentiles": f"{plain.held / runs:.1%}", "error of ece": f"{np.mean(errors):.4f}",
                "of ece_debiased": f"{np.mean(better):.4f}",
            }  # fmt: skip
            for name, cover in found.items():
                yield cover.row("cell", name, ", ".join(world), str(n), **(more if name == "ece" else {}))


def cell(records: dict[str, np.ndarray], resamples: Resamples, *metrics: Metric) -> Replicates:
    """The numbers of one cell; the whole of the calibration takes longest."""
    return replicates(records, ["accuracy", *(metrics or ("calibration",))], resamples)


def two_values(records: dict[str, np.ndarray]) -> Means:
    """The ECE and the gap alone."""
    confidence, correct = records["confidence"], np.asarray(records["correct"], float)
    return binned(confidence, correct, bin_index(confidence, bin_edges(confidence)), 15, {"ece": "ece", "gap": "gap"})


def percentiles(records: dict[str, np.ndarray], count: int, seed: int) -> np.ndarray:
    """What a plain bootstrap makes of the ECE: its value in every resample."""
    found, n = calibration(records), len(records["correct"])
    assert isinstance(found, Means)
    counts = np.concatenate(list(resampled(n, count, seed).chunks()))
    return np.asarray(found.combine(found.means + counts @ (found.columns - found.means.astype(np.float32)) / n)["ece"])


# -- several cells -----------------------------------------------------------------------------------------------
def averages(runs: int, resamples: int, only: str) -> Iterator[Row]:
    """Averages over five data sets, and the H of clean and attacked accuracy."""
    clean_world = ("even", "calibrated")
    for world, sizes in SETS:
        if only not in f"average h {world}":
            continue
        true, h = truths(world), float(harmonic_mean(truths(clean_world)["accuracy"], truths(world)["accuracy"]))
        found = {name: Coverage(true[name]) for name in ("accuracy", "ece", "gap")} | {"h": Coverage(h)}
        for run in range(runs):
            shared = [resampled(n, resamples, run, k) for k, n in enumerate(sizes)]
            draws = [random(run, n, world, k) for k, n in enumerate(sizes)]
            clean, robust = (
                average([cell(sample(here, r.n, draw), r, two_values) for r, draw in zip(shared, draws, strict=True)])
                for here in (clean_world, world)
            )
            numbers = harmonic(clean, robust)
            for name, cover in found.items():
                cover.add((numbers if name == "h" and numbers else robust).interval(name))
        n = " ".join(map(str, dict.fromkeys(sizes)))
        for name, cover in found.items():
            yield cover.row("h" if name == "h" else "average", name, ", ".join(world), n)


def differences(runs: int, resamples: int, only: str) -> Iterator[Row]:
    """Limits of differences between two models on the same samples."""
    for n in (100, 500):
        for world, other in (worlds for worlds in PAIRS if only in f"difference {worlds}"):
            found = {name: Coverage(truths(other)[name] - truths(world)[name]) for name in ("accuracy", "ece", "gap")}
            for run in range(runs):
                shared = resampled(n, resamples, run)
                one, two = (cell(x, shared, two_values) for x in pair(world, other, n, random(run, n, world)))
                for name, cover in found.items():
                    cover.add(Interval(*difference(one, two, name)[:3]))
            for name, cover in found.items():
                yield cover.row("difference", name, f"{', '.join(world)} | {', '.join(other)}", str(n))


def sure_errors(records: dict[str, np.ndarray]) -> Means:
    """Share of errors among the samples of confidence above 0.9."""
    sure = np.asarray(records["confidence"]) > 0.9
    columns = np.stack([sure & ~np.asarray(records["correct"], bool), sure], axis=1).astype(float)
    return Means(columns, lambda means: {"sure_errors": means[..., 0] / np.where(means[..., 1] > 0, means[..., 1], np.nan)})


def ratios(runs: int, resamples: int, only: str) -> Iterator[Row]:
    """A ratio of two counts."""
    for world in (w for w in [*BROKEN, ("peaked", "calibrated"), ("saturated", "sure ones wrong")] if only in f"ratio {w}"):
        for n in (40, 200):
            cover = Coverage(truths(world)["sure_errors"])
            for run in range(runs):
                records = sample(world, n, random(run, n, world))
                cover.add(replicates(records, [sure_errors], resampled(n, resamples, run)).interval("sure_errors"))
            yield cover.row("ratio", "sure_errors", ", ".join(world), str(n))


# -- claims ------------------------------------------------------------------------------------------------------
def compared(runs: int, resamples: int, only: str) -> Iterator[Row]:
    """How often two models are said to differ, and one of three to be best: the third is another like the second."""
    for n in (40, 100, 500):
        for world, other in (worlds for worlds in PAIRS if only in f"{worlds}"):
            small = starred = 0
            for run in range(runs):
                shared, draw = resampled(n, resamples, run), random(run, n, world)
                one, two = (cell(x, shared, two_values) for x in pair(world, other, n, draw))
                three = cell(pair(world, other, n, draw)[1], shared, two_values)
                small += difference(one, two, "ece").p < 0.05
                starred += "best" in mark({"one": one, "two": two, "three": three}, "ece").values()
            yield {
                "first": ", ".join(world), "second": ", ".join(other), "n": str(n), "true ECE": f"{truths(world)['ece']:.4f}",
                "of the second": f"{truths(other)['ece']:.4f}", "p < 0.05": f"{small / runs:.1%}",
                "best": f"{starred / runs:.1%}",
            }  # fmt: skip


if __name__ == "__main__":
    main()
