"""How often 95 % intervals hold the truth, on invented worlds where it is known: what is far from 95 % is a fault.

    python benchmarks/interval_coverage.py --runs 400 --out results/interval_coverage.csv

A line for each value, world and number of samples: the true value, how often its interval holds it, the mean width; for a
calibration error, how often plain bootstrap percentiles hold it and the mean absolute errors of `ece` and `ece_debiased`.
Cells, averages over five data sets, H, differences of two models on the same samples, and a ratio.

    python benchmarks/interval_coverage.py --compare --runs 400 --out results/comparison_level.csv

Models on the same samples instead: how often "their ECE differs" has p < 0.05, and how often one of three is marked best,
where they do not differ and where they do.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from robustcal.metrics.accuracy import harmonic_mean
from robustcal.metrics.bins import bin_edges, bin_index
from robustcal.metrics.calibration import NORMS, binned, calibration
from robustcal.metrics.weighted import Means
from robustcal.report.catalogue import Metric
from robustcal.report.resample import Resamples
from robustcal.report.stats import Interval, Replicates, average, difference, harmonic, interval, mark, replicates

#: Distributions of the confidence.
CONFIDENCES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "peaked": lambda draw, n: 1 - 0.9 * draw.beta(0.5, 1.5, n),  # most mass near 1, as CLIP's
    "even": lambda draw, n: draw.uniform(0.1, 1, n),
    "saturated": lambda draw, n: np.where(draw.random(n) < 0.6, 1 - 1e-4 * draw.random(n), draw.uniform(0.2, 1, n)),
    "near 1": lambda draw, n: 1 - 1e-3 * draw.beta(0.5, 2, n),  # under attack
    "near 0.38": lambda draw, n: draw.normal(0.38, 0.006, n),
    "many classes": lambda draw, n: draw.beta(1, 12, n),  # a thousand of them: most mass below 0.1
}
#: Probability of being correct, given the confidence.
TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda c: c,
    "2 points over": lambda c: np.clip(c - 0.02, 0, 1),
    "5 points over": lambda c: np.clip(c - 0.05, 0, 1),
    "a quarter over": lambda c: 0.75 * c,
    "temperature 1.3": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 1.3),
    "temperature 2": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 2),
    "temperature 0.7": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 0.7),
    "wavy": lambda c: np.clip(c + 0.06 * np.sin(2 * np.pi * c), 0, 1),
    "over above 0.8 only": lambda c: np.where(c > 0.8, c - 0.08, c),
    "one bin off by 0.3": lambda c: np.where((c > 0.6) & (c <= 2 / 3), c - 0.3, c),
    "none right": lambda c: np.zeros_like(c),
    "0.5 % right": lambda c: np.full_like(c, 0.005),
    "2 % right": lambda c: np.full_like(c, 0.02),
    "half right": lambda c: np.full_like(c, 0.5),
    "half as sure": lambda c: c / 2,
    "sure ones wrong": lambda c: np.where(c > 0.9, 0.005, c),
}
World = tuple[str, str]
SMOOTH: list[World] = [("peaked", truth) for truth in [*TRUTHS][:10]] + [
    ("even", "calibrated"), ("even", "5 points over"), ("even", "temperature 1.3"), ("even", "wavy"),
    ("even", "one bin off by 0.3"), ("saturated", "calibrated"), ("saturated", "5 points over"), ("saturated", "wavy"),
    ("peaked", "2 % right"),
]  # fmt: skip
BROKEN: list[World] = [("near 1", "none right"), ("near 1", "0.5 % right"), ("near 1", "2 % right")]
#: Worlds of one cell, and the numbers of samples each is seen with.
CELLS: list[tuple[list[World], list[int]]] = [
    (SMOOTH, [128, 500, 2000]), (BROKEN, [100, 200, 500]),
    ([("near 0.38", truth) for _, truth in BROKEN] + [("peaked", "none right"), ("peaked", "0.5 % right")], [40, 128, 500]),
    ([("saturated", "sure ones wrong"), ("near 1", "half right")], [100, 500]),
    ([("many classes", truth) for truth in ("calibrated", "half as sure", "none right", "2 % right")], [128, 500, 2000]),
    ([("peaked", "calibrated"), ("even", "half right"), ("peaked", "2 % right"), ("near 0.38", "none right"), BROKEN[2]],
     [2, 5, 10, 20, 40]),
]  # fmt: skip
#: Five data sets each: the world of the attacked images. Their clean images are "even", "calibrated".
SETS: list[tuple[World, list[int]]] = [
    (BROKEN[0], [100] * 5), (BROKEN[1], [100] * 5), (BROKEN[2], [40] * 5), (BROKEN[1], [50, 100, 200, 500, 1000]),
    (("peaked", "2 % right"), [128] * 5), (("peaked", "a quarter over"), [128] * 5), (("peaked", "calibrated"), [500] * 5),
]  # fmt: skip
#: Two models: the world of each. In all but the last three their true errors are equal.
PAIRS: list[tuple[World, World]] = [(world, world) for world in SMOOTH[:1] + SMOOTH[2:6] + SMOOTH[-1:] + BROKEN] + [
    (("peaked", "calibrated"), ("even", "calibrated")), (("peaked", "5 points over"), ("saturated", "5 points over")),
    (("peaked", "calibrated"), ("peaked", "5 points over")), (("peaked", "temperature 1.3"), ("peaked", "temperature 2")),
    (("near 1", "0.5 % right"), ("near 1", "half right")),
]  # fmt: skip
#: Share of the samples on which two models have the same confidence and the same luck.
SHARED = 0.7
PARTS = ("ece", "overconfidence", "underconfidence", "gap")
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="simulated runs of each world")
    parser.add_argument("--resamples", type=int, default=300)
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
            **{"percentiles": "", "error of ece": "", "of ece_debiased": "", **more},
        }  # fmt: skip


def random(run: int, n: int, world: World, place: int = 0) -> np.random.Generator:
    """The random numbers of one run of a world."""
    return np.random.default_rng([run, n, place, *" ".join(world).encode()])


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


def sample(world: World, n: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Records of n samples."""
    confidence = CONFIDENCES[world[0]](draw, n)
    return {"confidence": confidence, "correct": draw.random(n) < TRUTHS[world[1]](confidence)}


def percentiles(records: dict[str, np.ndarray], count: int, seed: int) -> np.ndarray:
    """What a plain bootstrap makes of the ECE: its value in every resample."""
    found, n = calibration(records), len(records["correct"])
    counts = np.concatenate(list(resampled(n, count, seed).chunks()))
    return np.asarray(found.combine(found.means + counts @ (found.columns - found.means.astype(np.float32)) / n)["ece"])


@cache
def truths(world: World, n: int = 1_000_000) -> dict[str, float]:
    """The values that infinitely many samples would have: correctness by its probability."""
    confidence = CONFIDENCES[world[0]](np.random.default_rng(0), n)
    right = TRUTHS[world[1]](confidence)
    index = bin_index(confidence, bin_edges(confidence, 15))
    gaps = np.bincount(index, confidence - right, minlength=15) / n
    gaps[np.abs(gaps) < 1e-12] = 0.0
    share = np.bincount(index, minlength=15) / n
    sure = confidence > 0.9
    return {
        **{name: float(norm(gaps, share)) for name, norm in NORMS.items()}, "gap": float(gaps.sum()),
        "accuracy": float(right.mean()), "sure_errors": float(1 - right[sure].mean()) if sure.any() else float("nan"),
    }  # fmt: skip


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
                average([cell(sample(w, r.n, draw), r, two_values) for r, draw in zip(shared, draws, strict=True)]) for w in (clean_world, world)
            )
            numbers = harmonic(clean, robust)
            for name, cover in found.items():
                cover.add((numbers if name == "h" and numbers else robust).interval(name))
        n = " ".join(map(str, dict.fromkeys(sizes)))
        for name, cover in found.items():
            yield cover.row("h" if name == "h" else "average", name, ", ".join(world), n)


def pair(world: World, other: World, n: int, draw: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Records of two models on the same samples, alike on `SHARED` of them."""
    (confidence, truth), (confidence_b, truth_b) = world, other
    a, b, same = CONFIDENCES[confidence](draw, n), CONFIDENCES[confidence_b](draw, n), draw.random(n) < SHARED
    luck, luck_b = draw.random(n), draw.random(n)
    b, luck_b = np.where(same, a, b) if confidence == confidence_b else b, np.where(same, luck, luck_b)
    return [{"confidence": c, "correct": k < TRUTHS[t](c)} for c, k, t in ((a, luck, truth), (b, luck_b, truth_b))]


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
    for n in (20, 40, 100, 500, 2000):
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
                "of the second": f"{truths(other)['ece']:.4f}", "p < 0.05": f"{small / runs:.1%}", "best": f"{starred / runs:.1%}",
            }  # fmt: skip


if __name__ == "__main__":
    main()
