"""The committed tables of photographs come out again from the bundled weights, where the packs of images are at hand."""

import csv
from pathlib import Path

import pytest

from robustcal import api

FOLDER = Path(__file__).resolve().parents[1] / "results" / "natural"
MODELS = ["small-clip", "small-tecoa", "small-pmg-aft", "small-fare", "small-tga-zsr", "small-ucat", "small-ucat-scaled"]
PACKS = [f"webdataset:{name}:resolution=32" for name in ("cifar10", "imagenette", "caltech97", "food101_64px", "eurosat")]


@pytest.fixture
def photographs(shared, monkeypatch):
    """The packs as a data root."""
    root = shared / "data" / "wds"
    if not all((root / pack.split(":")[1]).is_dir() for pack in PACKS):
        pytest.skip("no packs of photographs")
    monkeypatch.setenv("ROBUSTCAL_DATA", str(root))


@pytest.fixture(scope="module")
def committed():
    """Cell -> its committed row, where the samples of all sets are as many."""
    with (FOLDER / "cells.csv").open(newline="") as file:
        rows = {row["cell"]: row for row in csv.DictReader(file)}
    assert len({row["n"] for row in rows.values()}) == 1
    return rows


#: What is made again: every clean row and a few attacked ones. The rest takes an hour: `robustcal bench --suite small`.
DRAWN = [
    (MODELS, ["clean"], PACKS), (["small-ucat"], ["pgd:steps=100"], PACKS[1:2]), (["small-clip"], ["apgd"], PACKS[:1]),
    (["small-tecoa"], ["confidence:goal=gap"], PACKS[4:]),
]  # fmt: skip


@pytest.mark.parametrize(("models", "attacks", "packs"), DRAWN)
def test_rows_come_out_again_from_bundled_weights(tmp_path, photographs, committed, models, attacks, packs):
    count = int(next(iter(committed.values()))["n"])
    how = {"eps": ["1/255"], "limit": count, "device": "cpu", "workers": 1, "progress": False}
    run = api.bench(models=models, attacks=attacks, datasets=packs, out=tmp_path / "run", **how)
    found = {cell["cell"]: cell for _, cell in run.cells.iterrows()}
    assert len(found) == len(models) * len(packs)
    exact = attacks == ["clean"]
    for cell, again in found.items():
        row = committed[cell]  # the identity: a hash of weights, pixels, prompts and attack
        assert again["n"] == count
        # Another machine rounds otherwise: an attack then ends at another pixel, a sample on the edge of a bin in the next.
        assert abs(again["accuracy"] - float(row["accuracy"])) <= (1e-6 if exact else 3 / count)
        assert abs(again["confidence"] - float(row["confidence"])) <= (1e-5 if exact else 5e-3)
        assert abs(again["ece"] - float(row["ece"])) <= (5e-3 if exact else 2e-2)
