"""The committed tables of photographs come out again from the bundled weights, where the packs of images are at hand."""

import csv
from pathlib import Path

import pytest

from robustcal import api

FOLDER = Path(__file__).resolve().parents[1] / "results" / "natural"
#: What is made again, by model and attack; the rest of the suite takes an hour: robustcal bench --suite small.
DRAWN = [("small-clip", "clean"), ("small-tecoa", "clean"), ("small-ucat", "clean"), ("small-ucat", "pgd:steps=100"),
         ("small-clip", "confidence:goal=gap")]  # fmt: skip
PACK = "webdataset:imagenette:resolution=32"


@pytest.fixture(scope="module")
def committed():
    with (FOLDER / "cells.csv").open(newline="") as file:
        return {row["cell"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("model", "attack"), DRAWN)
def test_rows_come_out_again_from_bundled_weights(tmp_path, monkeypatch, shared, committed, model, attack):
    root = shared / "data" / "wds"
    if not (root / "imagenette").is_dir():
        pytest.skip("no packs of photographs")
    monkeypatch.setenv("ROBUSTCAL_DATA", str(root))
    counts = {int(row["n"]) for row in committed.values() if "imagenette" in row["dataset_spec"]}
    run = api.bench(
        models=[model], attacks=[attack], datasets=[PACK], eps=["1/255"], limit=max(counts), device="cpu", workers=1,
        out=tmp_path / "run",
    )  # fmt: skip
    ((_, again),) = run.cells.iterrows()
    row = committed[again["cell"]]  # the same weights, pixels, prompts and attack: the identity is a hash of all of them
    count = int(row["n"])
    assert again["n"] == count
    # Another machine rounds otherwise: an attack may then end at another pixel, and a sample on the edge of a bin in the next.
    assert abs(again["accuracy"] - float(row["accuracy"])) <= (0 if attack == "clean" else 2 / count) + 1e-6
    assert abs(again["confidence"] - float(row["confidence"])) <= (1e-5 if attack == "clean" else 5e-3)
    assert abs(again["ece"] - float(row["ece"])) <= (2e-3 if attack == "clean" else 1e-2)
