"""Collect what training runs measured on held-out source images: one row per run, from their cards and logs.

    python benchmarks/zoo_training.py runs/zoo runs/zoo-seed-1 runs/zoo-seed-2 > results/zoo_training.csv
    python benchmarks/zoo_training.py --curves runs/lr-* > results/small_training.csv     # every measurement, not the last one

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


def main(folders: list[str]) -> None:
    curves = "--curves" in folders
    columns = ("run", "seed", "lr", "step", *COLUMNS[-4:]) if curves else COLUMNS
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    for folder in folders:
        for card in sorted(Path(folder).glob("*/card.json")):
            writer.writerows(curve(card.parent) if curves else [row(card.parent)])


if __name__ == "__main__":
    main(sys.argv[1:])
