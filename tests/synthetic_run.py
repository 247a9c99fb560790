"""Build a run directory with invented records, so that reports are tested without a model."""

from __future__ import annotations

import hashlib
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
from cells import cell
from scipy.special import psi

from robustcal.cell import SHARD
from robustcal.records.store import Run

MODELS = {"clip": 0.0, "tecoa": 0.55, "ucat": 0.7}  # how much of the attack's pull a model withstands
KINDS = {"clean": "clean", "noise": "control", "pgd": "white-box", "cw": "white-box", "transfer": "transfer"}
PULL = {"clean": 0.0, "noise": 0.15, "pgd": 1.0, "cw": 0.9}


def records(n: int, classes: int, pull: float, sharpness: float, seed: int, prefix: str = "set", eps: float = 0.0):
    """One cell's columns from invented logits; the same `seed` gives the same samples at another `pull`."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, n)
    cosines = 0.2 + 0.05 * draw.standard_normal((n, classes))
    cosines[np.arange(n), labels] += 0.12 + 0.05 * draw.standard_normal(n)
    rival = (labels + 1 + draw.integers(0, classes - 1, n)) % classes
    cosines[np.arange(n), labels] -= 0.09 * pull
    cosines[np.arange(n), rival] += 0.09 * pull
    logits = cosines * sharpness
    order = np.argsort(-logits, axis=1)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p = np.exp(log_p)
    rows, prediction = np.arange(n), order[:, 0]
    alpha = np.exp(cosines / 0.07)
    alpha0 = alpha.sum(1)
    mean = alpha / alpha0[:, None]
    onehot = np.eye(classes)[labels]
    flags = np.array([""] * n, dtype=object)
    if pull >= 1:
        flags[:: max(n // 3, 1)] = "zero-gradients"
    return {
        "id": [f"{prefix}/test/{i:05d}" for i in range(n)],
        "label": labels.astype(np.int64),
        "prediction": prediction.astype(np.int64),
        "correct": prediction == labels,
        "confidence": p.max(1).astype(np.float32),
        "label_probability": p[rows, labels].astype(np.float32),
        "entropy": (-(p * log_p).sum(1)).astype(np.float32),
        "top_logits": np.take_along_axis(logits, order, 1).astype(np.float32),
        "top_classes": order.astype(np.int64),
        "rest_logit": np.full(n, -np.inf, np.float32),
        "brier": ((p - onehot) ** 2).sum(1).astype(np.float32),
        "dirichlet_confidence": mean.max(1).astype(np.float32),
        "log_alpha0": np.log(alpha0).astype(np.float32),
        "au": (mean * (psi(alpha0 + 1)[:, None] - psi(alpha + 1))).sum(1).astype(np.float32),
        "log_eu": np.log(classes / (alpha0 + classes)).astype(np.float32),
        "linf": np.full(n, eps, np.float32),
        "l2": np.full(n, eps * 32, np.float32),
        "forwards": np.full(n, 1 + 20 * (pull > 0.5), np.int32),
        "backwards": np.full(n, 20 * (pull > 0.5), np.int32),
        "zero_gradients": np.zeros(n, np.int32),
        "flags": list(flags),
    }


def several(columns):
    """What changes where the label and the class after it are both true of an image."""
    logits, order = columns["top_logits"].astype(float), columns["top_classes"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    dense = np.empty_like(p)
    np.put_along_axis(dense, order, p / p.sum(1, keepdims=True), axis=1)
    target = np.zeros_like(dense)
    classes = dense.shape[1]
    for shift in (0, 1):
        target[np.arange(len(p)), (columns["label"] + shift) % classes] = 1
    return {
        "labels": [[int(k), int(k + 1) % classes] for k in columns["label"]],
        "label": np.full(len(p), -1),
        "correct": target[np.arange(len(p)), columns["prediction"]] > 0,
        "label_probability": (dense * target).sum(1).astype(np.float32),
        "brier": ((dense - target / target.sum(1, keepdims=True)) ** 2).sum(1).astype(np.float32),
    }


def with_correct(columns, correct):
    """The same samples, right where `correct` says so: the label changes places with the prediction, or the runner-up does."""
    classes, logits = columns["top_classes"].copy(), columns["top_logits"].astype(np.float64)
    rows = np.arange(len(classes))
    place = np.argmax(classes == columns["label"][:, None], 1)
    other = np.where(correct, place, np.where(place == 0, 1, 0))
    classes[rows, 0], classes[rows, other] = classes[rows, other], classes[rows, 0]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own = p[rows, np.argmax(classes == columns["label"][:, None], 1)]
    return {
        **columns, "top_classes": classes, "prediction": classes[:, 0], "correct": classes[:, 0] == columns["label"],
        "label_probability": own.astype(np.float32), "brier": ((p**2).sum(1) - 2 * own + 1).astype(np.float32),
    }  # fmt: skip


def make_run(
    path: Path, *, models=("clip", "tecoa", "ucat"), attacks=("clean", "pgd", "cw"),
    datasets=("digits", "letters"), radii=("1/255", "2/255"), n=96, classes=10, classnames=None, seed=0, weights=0, time=0.0, precision="fp32",
    multi=False, size=None,
) -> Run:  # fmt: skip
    """Write a complete run directory at `path`. `size` of the data set: default n."""
    versions = {"robustcal": "0.1.0", "torch": "2.15.0"}
    command = shlex.join(
        ["robustcal", "bench", "--models", *models, "--attacks", *attacks, "--datasets", *datasets, "--eps", *radii]
    )
    run = Run.create(path, {"command": command, "versions": versions, "device": "cpu", "seed": seed, "time": time})
    for m, model in enumerate(models):
        for dataset in datasets:
            names = list(classnames or [f"class {i}" for i in range(classes)])
            for attack in attacks:
                for eps in ("0",) if attack == "clean" else radii:
                    name = attack.split(":")[0]
                    strength = float(Fraction(eps) * 255)
                    pull = min(PULL.get(name, 0.8) * strength * (1 - MODELS.get(model, 0.3)), 4)  # cosines of more would leave [-1, 1]
                    made = cell(
                        attack, eps, model=model, dataset=dataset, n=n, classnames=tuple(names), precision=precision, seed=seed,
                        weights=f"sha256:{hashlib.sha256(f'{model}{weights}'.encode()).hexdigest()}", order=f"order {seed}",
                        data=hashlib.sha256(dataset.encode()).hexdigest()[:16], prompts="1234abcd5678ef90", returns="best",
                        kind=KINDS.get(name, "white-box"), accuracy_only=name == "autoattack", model_place=m,
                        task="multi" if multi else "single", dataset_size=size or n,
                    )  # fmt: skip
                    run.add_cell(made)
                    key = int(hashlib.sha256(dataset.encode()).hexdigest()[:6], 16) + seed
                    columns = records(n, len(names), pull, 60 + 10 * m, key, dataset, float(Fraction(eps)))
                    columns |= several(columns) if multi else {}
                    for shard in range(made.shards):
                        rows = slice(shard * SHARD, (shard + 1) * SHARD)
                        run.write_shard(made.id, shard, {name: column[rows] for name, column in columns.items()})
    return run
