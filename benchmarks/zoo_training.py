"""Collect what training runs measured on held-out source images: one row per run, from their cards and logs.

    python benchmarks/zoo_training.py runs/zoo runs/zoo-seed-1 runs/zoo-seed-2 > results/zoo_training.csv
    python benchmarks/zoo_training.py --curves runs/lr-* > results/small_training.csv     # every measurement, not the last one
    python benchmarks/zoo_training.py --sources runs/small-base-seed-1 > results/small_base_training.csv  # of a base

The runs of runs/lr-RATE-seed-SEED/METHOD: `robustcal.train("small/METHOD", lr=RATE, seed=SEED, out=...)` from Python.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = (
    "run", "seed", "steps", "batch", "lr", "loss", "images_per_second", "clean_accuracy", "clean_ece", "robust_accuracy",
    "robust_ece",
)  # fmt: skip


def row(run: Path) -> dict[str, object]:
    """The numbers of one run: its held-out measurements, its last loss and its median speed."""
    card = json.loads((run / "card.json").read_text())
    with (run / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    speeds = sorted(float(line["images_per_second"]) for line in log if line.get("images_per_second"))
    held_out = card.get("calibrated", card["held_out"])
    recipe = card["recipe"]
    return {
        "run": run.name, "seed": card["seed"], "steps": card["steps"], "batch": recipe["batch"], "lr": recipe["lr"],
        "loss": log[-1]["loss"], "images_per_second": round(speeds[len(speeds) // 2]),
        **{key: round(held_out[key], 4) for key in COLUMNS[-4:] if key in held_out},
    }  # fmt: skip


def curve(run: Path) -> Iterator[dict[str, object]]:
    """Every held-out measurement of one run, in order of its steps."""
    card = json.loads((run / "card.json").read_text())
    kept = {"run": run.name, "seed": card["seed"], "lr": card["recipe"]["lr"]}
    with (run / "log.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if line.get("held_out_robust_accuracy"):
                measured = {key: round(float(line[f"held_out_{key}"]), 4) for key in COLUMNS[-4:]}
                yield {**kept, "step": line["step"], **measured}


def sources(run: Path) -> Iterator[dict[str, object]]:
    """Every held-out measurement of a pre-training, a row for each of its data sets, in order of its steps; others have none."""
    seed = json.loads((run / "card.json").read_text())["seed"]
    with (run / "log.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            for key, value in line.items():
                source = key.removeprefix("held_out_").removesuffix("_clean_accuracy")
                if value and key == f"held_out_{source}_clean_accuracy":
                    ece = float(line[f"held_out_{source}_clean_ece"])
                    found = {"clean_accuracy": round(float(value), 4), "clean_ece": round(ece, 4), "loss": line["loss"]}
                    yield {"run": run.name, "seed": seed, "lr": line["lr"], "step": line["step"], "source": source, **found}


def main(folders: list[str]) -> None:
    if "--sources" in folders:
        columns, rows = ("run", "seed", "lr", "step", "source", "clean_accuracy", "clean_ece", "loss"), sources
    elif "--curves" in folders:
        columns, rows = ("run", "seed", "lr", "step", *COLUMNS[-4:]), curve
    else:
        columns, rows = COLUMNS, lambda run: iter([row(run)])
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    for folder in folders:
        for card in sorted(Path(folder).glob("*/card.json")):
            writer.writerows(rows(card.parent))


if __name__ == "__main__":
    main(sys.argv[1:])
