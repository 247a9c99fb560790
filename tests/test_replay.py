"""The worst images of a finished run, attacked again: they are those of the record, or it is said that they are not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import robustcal
from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.report.images import images_beside, reach, strip
from robustcal.report.report import gather, write_report
from robustcal.sweep import local
from robustcal.sweep.replay import replay
from robustcal.types import UserError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "workers_for", lambda device, pending, asked=None: [device])
        out = tmp_path_factory.mktemp("replay") / "run"
        attacks = ["clean", "pgd:steps=2", "pgd:steps=2:norm=l2"]
        robustcal.bench(models=["tiny-clip"], attacks=attacks, datasets=["digits"], eps=["8/255"], limit=12, device="cpu", out=out)
    return Run.open(out)


def cell_of(run, piece):
    return next(cell for cell in run.cells() if piece in cell.attack)


@pytest.mark.parametrize("piece", ["norm=linf", "norm=l2", "clean"])
def test_a_replay_gives_the_numbers_of_the_record(run, piece):
    cell = cell_of(run, piece)
    records = run.read(cell.id)
    chosen = [7, 2, 9, 4]  # another order and another batch than the sweep's
    found = replay(cell, [records["id"][i] for i in chosen], "cpu")
    assert found.predictions.tolist() == records["prediction"][chosen].tolist()
    assert found.confidences == pytest.approx(records["confidence"][chosen], abs=1e-4)
    change = found.attacked - found.clean
    assert np.abs(change).max(axis=(1, 2, 3)) == pytest.approx(records["linf"][chosen], abs=1e-5)
    assert np.sqrt((change**2).sum((1, 2, 3))) == pytest.approx(records["l2"][chosen], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("key, value, message", [
    ("weights", "99", "weights are others"), ("data", "99", "dataset"), ("attack_version", 99, "version 99"),
])  # fmt: skip
def test_what_has_changed_since_is_refused(run, key, value, message):
    cell = cell_of(run, "norm=linf")
    changed = replace(cell, identity=replace(cell.identity, **{key: value}))
    with pytest.raises(UserError, match=message):
        replay(changed, [run.read(cell.id)["id"][0]], "cpu")


def test_the_command_draws_the_worst_and_the_page_shows_them(run, tmp_path, capsys):
    cell = cell_of(run, "norm=linf")
    assert main(["report", str(run.path), "--images", cell.id[:9], "--top", "5", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "all predictions are those of the record" in said.out and said.err == ""
    assert (tmp_path / "images" / f"{cell.id}.pdf").is_file()
    strips = json.loads((tmp_path / "images" / f"{cell.id}.json").read_text())
    records = run.read(cell.id)
    order = np.argsort(np.where(records["correct"], 1 + records["confidence"], -records["confidence"]), kind="stable")
    assert list(strips) == records["id"][order[:5]].tolist()
    picture = np.asarray(Image.open(tmp_path / "images" / strips[records["id"][order[0]]]).convert("RGB"))
    assert picture.shape == (96, 3 * 100, 3) or picture.shape == (96, 96 * 3 + 2 * 6, 3)
    results = gather([run.path], resamples=20)
    page = write_report(results, ["html"], tmp_path)[-1].read_text()
    shown = [name for name in strips.values() if f"images/{name}" in page]
    assert shown == list(strips.values())
    (tmp_path / "images" / shown[0]).unlink()
    assert (cell.id, next(iter(strips))) not in images_beside(tmp_path)


def test_another_prediction_is_said(run, tmp_path, capsys, monkeypatch):
    from robustcal.sweep import replay as module

    whole = module.attack_and_judge

    def other(*args, **how):
        images, columns = whole(*args, **how)
        return images, columns | {"prediction": (columns["prediction"] + 1) % 10}

    monkeypatch.setattr(module, "attack_and_judge", other)
    assert main(["report", str(run.path), "--images", cell_of(run, "norm=linf").id, "--top", "3", "--out", str(tmp_path)]) == 0
    assert "3 of 3 predictions are not those of the record" in capsys.readouterr().err


def test_a_worst_case_names_a_member(run, tmp_path):
    results = gather([run.path], resamples=20)
    assert not [c for c in results.cells if c.kind == "worst"]  # two norms are two threats
    from synthetic_run import make_run

    invented = make_run(tmp_path / "run", models=("clip",), datasets=("digits",), radii=("1/255",), n=20)
    worst = next(c for c in gather([invented.path], resamples=20).cells if c.kind == "worst")
    assert main(["report", str(invented.path), "--images", worst.id]) == 2


def test_the_change_is_stretched_to_the_radius():
    clean = np.full((3, 32, 32), 0.5, np.float32)
    attacked = clean.copy()
    attacked[0, :, :16] += 0.02
    assert reach(0.1, clean[None], attacked[None]) == pytest.approx(0.02, rel=1e-4)
    assert reach(0.01, clean[None], attacked[None]) == 0.01 and reach(0.1, clean[None], clean[None]) == 0
    pixels = strip(clean, attacked, 0.02)
    third = pixels[:, -96:]
    assert (third[:, :48, 0] == 255).all() and (third[:, :48, 1] == 128).all() and (third[:, 48:] == 128).all()
