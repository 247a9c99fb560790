"""How often the 95 % interval of ECE holds the true error, on invented worlds whose calibration is known.

    python benchmarks/interval_coverage.py --n 500 2000 --runs 200 --resamples 200

One line for each world and sample size: the true error over 15 bins; how often the interval of `ece` covers it and
how often plain bootstrap percentiles do; mean absolute error of plain and of debiased ECE.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit, logit

from robustcal.metrics.bins import bin_edges, bin_index
from robustcal.metrics.calibration import calibration
from robustcal.report.resample import Resamples
from robustcal.report.stats import interval

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[500, 2000], help="samples in a world")
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each world")
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    names = ("confidence", "truth", "n", "true ECE", "interval covers", "percentiles cover", "error of ece",
             "of ece_debiased")  # fmt: skip
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for n in options.n:
        for confidence, truth in WORLDS:
            print(line(confidence, truth, n, options.runs, options.resamples), flush=True)


def line(confidence: str, truth: str, n: int, runs: int, resamples: int) -> str:
    """Simulate one world and describe it as a row of a table."""
    expected = true_error(confidence, truth)
    inside, plain_inside, plain_error, error = 0, 0, [], []
    for run in range(runs):
        draw = np.random.default_rng([run, n])
        c = CONFIDENCES[confidence](draw, n)
        records = {"confidence": c, "correct": draw.random(n) < TRUTHS[truth](c)}
        found = calibration(records)
        counts = np.concatenate(list(Resamples(n, resamples, run).chunks()))
        resampled = found.means + counts @ (found.columns - found.means.astype(np.float32)) / n
        _, lo, hi = interval(0.0, found.drawn(resampled)["ece"])
        inside += lo <= expected <= hi
        _, lo, hi = interval(0.0, found.combine(resampled)["ece"])
        plain_inside += lo <= expected <= hi
        plain_error.append(abs(found["ece"] - expected))
        error.append(abs(found["ece_debiased"] - expected))
    return (
        f"| {confidence} | {truth} | {n} | {expected:.4f} | {inside / runs:.1%} | {plain_inside / runs:.1%}"
        f" | {np.mean(plain_error):.4f} | {np.mean(error):.4f} |"
    )


def true_error(confidence: str, truth: str, n: int = 2_000_000) -> float:
    """The ECE over 15 bins that infinitely many samples would have: correctness replaced by its probability."""
    c = CONFIDENCES[confidence](np.random.default_rng(0), n)
    index = bin_index(c, bin_edges(c, 15))
    return float(np.abs(np.bincount(index, c - TRUTHS[truth](c), minlength=15)).sum() / n)


if __name__ == "__main__":
    main()
