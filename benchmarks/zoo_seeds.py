"""Accuracy and calibration of fine-tuning runs on test sets, run by run: what the seed alone changes.

    python benchmarks/zoo_seeds.py runs/zoo/ucat runs/zoo-seed-1/ucat runs/zoo-seed-2/ucat > results/zoo_seeds.csv

500 test samples a set; PGD with 10 steps on the label; accuracies and expected calibration errors are shares in [0, 1].
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import torch

from robustcal.engine.heldout import measure
from robustcal.engine.inner import InnerAttack
from robustcal.registry import datasets, models

SETS = ("world-source", "world-shapes", "world-letters", "digits")
RADII = {"1/255": 1 / 255, "2/255": 2 / 255}
SAMPLES, STEPS = 500, 10
NUMBERS = ("clean_accuracy", "clean_ece", "robust_accuracy", "robust_ece")


def main(runs: list[Path]) -> None:
    torch.set_num_threads(1)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("run", "objective", "seed", "dataset", "eps", *NUMBERS))
    for run in runs:
        card = json.loads((run / "card.json").read_text())
        model = models.build(f"checkpoint:{run}")
        for name in SETS:
            source = datasets.build(name)
            classifier = model.classifier(source.classnames, source.templates)
            for radius, eps in RADII.items():
                attack = InnerAttack(eps, 2.5 * eps / STEPS, STEPS)
                found = measure(classifier, source, range(SAMPLES), attack, 100, 0)
                numbers = [round(found[key], 4) for key in NUMBERS]
                writer.writerow((run.name, card["recipe"]["objective"], card["seed"], name, radius, *numbers))
        sys.stdout.flush()


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])
