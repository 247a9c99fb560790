"""Curves go where people look at them: TensorBoard's files are read back, Weights & Biases is a recorder of calls."""

from __future__ import annotations

import csv
import sys
from types import SimpleNamespace

import pytest

import robustcal
from robustcal.cli import main
from robustcal.train.trackers import PLACES, TRACKERS
from robustcal.types import UserError

FEW = (
    'task = "pretrain"\nsources = ["world-source:size=40"]\nbatch = 4\nwidth = 8\nheld_out = 4\ncalibrate = 4\n'
    "eval_steps = 0\nlog_every = 1\nsave_every = 1\neval_every = 2\ncontext = 24\nsteps = 4\n"
)


class Told(Exception):
    """Stops a training as a kill would."""


def stop_at(step):
    def progress(event):
        if event["kind"] == "step" and event["step"] == step:
            raise Told

    return progress


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "few.toml"
    path.write_text(FEW)
    return str(path)


def logged(run):
    """(name, step) -> value of log.csv."""
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(key, int(row["step"])): float(row[key]) for row in rows for key in row if key != "step" and row[key]}


def test_tensorboard_has_what_the_log_has_through_a_stop(few, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    with pytest.raises(Told):
        robustcal.train(few, out=run, device="cpu", track="tensorboard", progress=stop_at(3))
    robustcal.train(few, out=run, device="cpu", track="tensorboard")
    found = accumulator.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    points = [(name, event.step, event.value) for name in found.Tags()["scalars"] for event in found.Scalars(name)]
    want = logged(run)
    assert len(points) == len(want) and {"loss", "lr", "held_out_clean_accuracy"} <= {name for name, _, _ in points}
    speed = {name for name, _, _ in points if name == "images_per_second"}
    for name, step, value in points:
        assert name in speed or value == pytest.approx(want[name, step], rel=1e-4), (name, step)


def test_wandb_gets_the_numbers_and_one_run_for_a_folder(few, tmp_path, monkeypatch):
    runs = []

    class Run:
        def __init__(self, **facts):
            self.facts, self.rows, self.closed = facts, [], False
            runs.append(self)

        def log(self, values, step):
            self.rows.append((step, values))

        def finish(self, exit_code):
            self.closed, self.failed = True, exit_code

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=Run))
    run = tmp_path / "run"
    with pytest.raises(Told):
        robustcal.train(few, out=run, device="cpu", track="wandb", progress=stop_at(3))
    robustcal.train(few, out=run, device="cpu", track="wandb")
    first, second = runs
    assert first.closed and second.closed and (first.failed, second.failed) == (1, 0)
    assert first.facts["id"] == second.facts["id"] and second.facts["resume"] == "allow"
    assert first.facts["project"] == "robustcal" and first.facts["name"] == "run" and first.facts["config"]["steps"] == 4
    told = {(key, step) for step, values in first.rows + second.rows for key in values}
    assert told == set(logged(run))
    assert not PLACES & {key for key, _ in told}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_told_before_anything_is_read(name, few, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, TRACKERS[name].module, None)
    assert main(["train", few, "--out", str(tmp_path / "run"), "--track", name]) == 2
    said = capsys.readouterr().err
    assert said.strip() == f"robustcal: tracker '{name}' needs a package that is not installed: pip install {TRACKERS[name].package}"
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker(few, tmp_path):
    with pytest.raises(UserError, match=r"tracker 'pen' is unknown; it is tensorboard or wandb"):
        robustcal.train(few, out=tmp_path / "run", track="pen")
