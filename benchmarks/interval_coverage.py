"""How often the 95 % interval of ECE holds the true error, on invented worlds whose calibration is known.

    python benchmarks/interval_coverage.py --n 128 500 2000 --runs 400 --out results/interval_coverage.csv

One line for each world and sample size: the true error over 15 bins; how often the interval of `ece` covers it and
how often plain bootstrap percentiles do; the same for the intervals of `overconfidence` and `underconfidence`; mean
absolute error of plain and of debiased ECE.

    python benchmarks/interval_coverage.py --compare --n 500 2000 --runs 400 --out results/comparison_level.csv

Two models on the same samples instead: how often "their ECE differs" has p < 0.05, where it does not and where it does.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from robustcal.metrics.bins import bin_edges, bin_index
from robustcal.metrics.calibration import NORMS, calibration
from robustcal.report.resample import Resamples
from robustcal.report.stats import difference, interval, replicates

#: Distributions of the confidence.
CONFIDENCES = {
    "peaked": lambda draw, n: 1 - 0.9 * draw.beta(0.5, 1.5, n),  # most mass near 1, as CLIP's
    "even": lambda draw, n: draw.uniform(0.1, 1, n),
    "saturated": lambda draw, n: np.where(draw.random(n) < 0.6, 1 - 1e-4 * draw.random(n), draw.uniform(0.2, 1, n)),
}
#: Probability of being correct, given the confidence.
TRUTHS = {
    "calibrated": lambda c: c,
    "2 points over": lambda c: np.clip(c - 0.02, 0, 1),
    "5 points over": lambda c: np.clip(c - 0.05, 0, 1),
    "a quarter over": lambda c: 0.75 * c,
    "temperature 1.3": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 1.3),
    "temperature 2": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 2),
    "temperature 0.7": lambda c: expit(logit(np.clip(c, 1e-9, 1 - 1e-9)) / 0.7),
    "attacked, 2 % right": lambda c: np.full_like(c, 0.02),
    "wavy": lambda c: np.clip(c + 0.06 * np.sin(2 * np.pi * c), 0, 1),
    "over above 0.8 only": lambda c: np.where(c > 0.8, c - 0.08, c),
    "one bin off by 0.3": lambda c: np.where((c > 0.6) & (c <= 2 / 3), c - 0.3, c),
}
WORLDS = [("peaked", truth) for truth in TRUTHS] + [
    ("even", "calibrated"), ("even", "5 points over"), ("even", "temperature 1.3"), ("even", "wavy"),
    ("even", "one bin off by 0.3"), ("saturated", "calibrated"), ("saturated", "5 points over"),
    ("saturated", "wavy"),
]  # fmt: skip


#: Two models: confidence and truth of each. In the first eight their true errors are equal.
PAIRS = [(world, world) for world in WORLDS[:1] + WORLDS[2:6] + WORLDS[7:8]] + [
    (("peaked", "calibrated"), ("even", "calibrated")), (("peaked", "5 points over"), ("saturated", "5 points over")),
    (("peaked", "calibrated"), ("peaked", "5 points over")), (("peaked", "temperature 1.3"), ("peaked", "temperature 2")),
]  # fmt: skip
#: Share of the samples on which two models have the same confidence and the same luck.
SHARED = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[500, 2000], help="samples in a world")
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each world")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--compare", action="store_true", help="two models on the same samples")
    parser.add_argument("--out", type=Path, help="a CSV file for the same table")
    options = parser.parse_args()
    rows = []
    for row in (compared if options.compare else covered)(options.n, options.runs, options.resamples):
        if not rows:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)
        rows.append(row)
        if options.out:
            with open(options.out, "w", newline="") as file:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def covered(sizes: list[int], runs: int, resamples: int) -> Iterator[dict[str, str]]:
    """A row for each world and sample size."""
    for n in sizes:
        for confidence, truth in WORLDS:
            gaps, share = true_gaps(confidence, truth)
            true = {name: float(NORMS[name](gaps, share)) for name in NORMS}
            inside = {"ece": 0, "overconfidence": 0, "underconfidence": 0, "percentiles": 0}
            plain_error, error = [], []
            for run in range(runs):
                draw = np.random.default_rng([run, n])
                c = CONFIDENCES[confidence](draw, n)
                found, resampled = resample(c, draw.random(n) < TRUTHS[truth](c), resamples, run)
                draws = {**found.drawn(resampled), "percentiles": found.combine(resampled)["ece"]}
                for name in inside:
                    _, low, high = interval(0.0, draws[name])
                    inside[name] += low <= true.get(name, true["ece"]) <= high
                plain_error.append(abs(found["ece"] - true["ece"]))
                error.append(abs(found["ece_debiased"] - true["ece"]))
            rate = {name: f"{count / runs:.1%}" for name, count in inside.items()}
            yield {
                "confidence": confidence, "truth": truth, "n": str(n), "true ECE": f"{true['ece']:.4f}",
                "interval covers": rate["ece"], "percentiles cover": rate["percentiles"],
                "over covers": rate["overconfidence"], "under covers": rate["underconfidence"],
                "error of ece": f"{np.mean(plain_error):.4f}", "of ece_debiased": f"{np.mean(error):.4f}",
            }  # fmt: skip


def compared(sizes: list[int], runs: int, resamples: int) -> Iterator[dict[str, str]]:
    """A row for each pair of models and sample size."""
    for n in sizes:
        for (confidence, truth), (confidence_b, truth_b) in PAIRS:
            small = 0
            for run in range(runs):
                draw = np.random.default_rng([run, n])
                a, b, same = CONFIDENCES[confidence](draw, n), CONFIDENCES[confidence_b](draw, n), draw.random(n) < SHARED
                luck, luck_b = draw.random(n), draw.random(n)
                b, luck_b = np.where(same, a, b) if confidence == confidence_b else b, np.where(same, luck, luck_b)
                pairs = (a, luck < TRUTHS[truth](a)), (b, luck_b < TRUTHS[truth_b](b))
                shared = Resamples(n, resamples, run)
                one, other = (replicates({"confidence": c, "correct": k}, ["calibration"], shared) for c, k in pairs)
                small += difference(one, other, "ece").p < 0.05
            errors = [NORMS["ece"](*true_gaps(*world)) for world in ((confidence, truth), (confidence_b, truth_b))]
            yield {
                "first": f"{confidence}, {truth}", "second": f"{confidence_b}, {truth_b}", "n": str(n),
                "true ECE": f"{errors[0]:.4f}", "of the second": f"{errors[1]:.4f}", "p < 0.05": f"{small / runs:.1%}",
            }  # fmt: skip


def resample(confidence: np.ndarray, correct: np.ndarray, count: int, seed: int):
    """The calibration of a sample, and the means of its columns in every bootstrap resample."""
    found = calibration({"confidence": confidence, "correct": correct})
    counts = np.concatenate(list(Resamples(len(confidence), count, seed).chunks()))
    return found, found.means + counts @ (found.columns - found.means.astype(np.float32)) / len(confidence)


def true_gaps(confidence: str, truth: str, n: int = 2_000_000) -> tuple[np.ndarray, np.ndarray]:
    """The gaps of 15 bins, and their shares, that infinitely many samples would have: correctness by its probability."""
    c = CONFIDENCES[confidence](np.random.default_rng(0), n)
    index = bin_index(c, bin_edges(c, 15))
    gaps = np.bincount(index, c - TRUTHS[truth](c), minlength=15) / n
    return np.where(np.abs(gaps) < 1e-12, 0.0, gaps), np.bincount(index, minlength=15) / n


if __name__ == "__main__":
    main()
