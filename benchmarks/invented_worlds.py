"""Invented worlds whose calibration is known: confidences, and the probability of being right given the confidence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import expit, logit

from robustcal.metrics.bins import bin_edges, bin_index
from robustcal.metrics.calibration import NORMS

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
    "none right": np.zeros_like,
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
    (SMOOTH, [128, 500]), (BROKEN, [100, 500]),
    ([("near 0.38", truth) for _, truth in BROKEN] + [("peaked", "none right"), ("peaked", "0.5 % right")], [40, 500]),
    ([("saturated", "sure ones wrong"), ("near 1", "half right")], [100, 500]),
    ([("many classes", truth) for truth in ("calibrated", "half as sure", "none right", "2 % right")], [128, 500]),
    ([("peaked", "calibrated"), ("even", "half right"), ("peaked", "2 % right"), ("near 0.38", "none right"), BROKEN[2]],
     [2, 5, 10, 20]),
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


def random(run: int, n: int, world: World, place: int = 0) -> np.random.Generator:
    """The random numbers of one run of a world."""
    return np.random.default_rng([run, n, place, *" ".join(world).encode()])


def sample(world: World, n: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Records of n samples."""
    confidence = CONFIDENCES[world[0]](draw, n)
    return {"confidence": confidence, "correct": draw.random(n) < TRUTHS[world[1]](confidence)}


def pair(world: World, other: World, n: int, draw: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Records of two models on the same samples, alike on `SHARED` of them."""
    (confidence, truth), (confidence_b, truth_b) = world, other
    a, b, same = CONFIDENCES[confidence](draw, n), CONFIDENCES[confidence_b](draw, n), draw.random(n) < SHARED
    luck, luck_b = draw.random(n), draw.random(n)
    b, luck_b = np.where(same, a, b) if confidence == confidence_b else b, np.where(same, luck, luck_b)
    return [{"confidence": c, "correct": k < TRUTHS[t](c)} for c, k, t in ((a, luck, truth), (b, luck_b, truth_b))]


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
