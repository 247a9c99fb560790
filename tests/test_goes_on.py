"""A sweep that goes on: what fails is named at once and again at the end, everything else is computed, exit status 2."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_clip import write_model

import robustcal
from robustcal import registry
from robustcal.cli import main
from robustcal.models import hub
from robustcal.records.store import Run
from robustcal.sweep.events import CellFailed
from robustcal.sweep.plan import Request, Sweep, make_plan, model_identity
from robustcal.types import UserError

MOODY = '''
import os
from robustcal import register

@register.attack(kind="control", returns="last")
def moody(classifier, images, labels, threat, noise):
    """Raises on data sets named in $MOODY, by their number of classes."""
    if str(classifier.num_classes) in os.environ.get("MOODY", "").split():
        classifier(images)  # it takes its first look, so that only the sweep meets the error
        raise RuntimeError("not today")
    return images
'''
BOTH = ["digits", "world-letters"]  # of 10 and of 26 classes


@pytest.fixture(scope="module")
def moody(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "moody.py"
    path.write_text(MOODY)
    return str(path)


def arguments(plugin, out, *more, models=("tiny-clip",), datasets=BOTH):
    return ["bench", "--plugin", plugin, "--models", *models, "--attacks", "clean", "moody", "--datasets", *datasets, "--eps", "1/255",
            "--limit", "16", "--device", "cpu", "--no-report", "--out", str(out), *more]  # fmt: skip


def finished(out):
    """(model, dataset, attack) by name of the cells that are whole."""
    run = Run.open(out)
    return {(c.model.split(":")[0], c.dataset.split(":")[0], c.attack) for c in run.cells() if not run.missing(c)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_failing_attack_and_one_missing_data_set_leave_the_rest(moody, tmp_path, monkeypatch, capsys, workers):
    monkeypatch.setenv("MOODY", "10")
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    asked = arguments(moody, tmp_path / "run", "--workers", workers, datasets=[*BOTH, "stl10"])
    assert main(asked) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum("not today" in line for line in said) == 2  # at once, and again at the end
    assert sum("stl10" in line and line.startswith("robustcal: failed:") for line in said) == 1
    assert any("the same command tries what failed again" in line for line in said)
    whole = {("tiny-clip", name, attack) for name in BOTH for attack in ("clean", "moody")} - {("tiny-clip", "digits", "moody")}
    assert finished(tmp_path / "run") == whole
    assert (tmp_path / "run" / "cells.csv").read_text().count("\n") == 1 + len(whole)

    monkeypatch.setenv("MOODY", "")  # mended: the same command computes the one that is missing
    assert main([*asked[:-2], "--strict", *asked[-2:]]) == 2  # the data set is still missing: strict stops at it
    assert main([word for word in asked if word != "stl10"]) == 0
    assert len(finished(tmp_path / "run")) == 4 and not Run.open(tmp_path / "run").failures()


def test_a_report_says_what_failed_and_why(moody, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOODY", "10")
    assert main(arguments(moody, tmp_path / "run")) == 2
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--layout", "main"]) == 0
    out = capsys.readouterr().out
    assert "failed: tiny-clip" in out and "not today" in out and "digits" in out


def test_strict_stops_at_the_first(moody, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOODY", "10 26")
    assert main(arguments(moody, tmp_path / "run", "--strict")) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "not today" in line]) <= 2 and not any("everything else" in line for line in said)
    assert not (tmp_path / "run" / "cells.csv").exists()


def test_from_python_failures_are_told_and_nothing_at_all_is_an_error(moody, tmp_path, monkeypatch):
    monkeypatch.setenv("MOODY", "10")
    how = {"attacks": ["clean", "moody"], "limit": 8, "device": "cpu", "plugins": [moody], "workers": 1}
    seen = []
    with pytest.warns(RuntimeWarning, match="not today"):
        run = robustcal.bench(models=["tiny-clip", "clip:gone.pt"], datasets=["digits"], out=tmp_path / "a", progress=seen.append, **how)
    assert [failure.cells for failure in run.failures if "not today" in failure.reason] == [1]
    assert any("gone.pt" in str(failure) for failure in run.failures) and len(run.failures) == 2
    assert [event.reason for event in seen if isinstance(event, CellFailed)] and len(run.cells) == 1
    with pytest.raises(UserError, match=r"gone\.pt"):
        robustcal.bench(models=["clip:gone.pt"], datasets=["digits"], out=tmp_path / "b", **how)
    assert not (tmp_path / "b").exists()


def test_a_parameter_that_one_data_set_does_not_suit_costs_only_its_cells(tmp_path, capsys):
    argv = ["bench", "--models", "tiny-clip", "--attacks", "clean", "apgd:loss=targeted:targets=9", "--datasets", "digits", "world-letters",
            "--limit", "4", "--device", "cpu", "--no-report", "--out", str(tmp_path / "run"), "--eps", "1/255"]  # fmt: skip
    status = main(argv)
    assert status in (0, 2)
    assert ("tiny-clip", "world-letters", "clean") in finished(tmp_path / "run")


def test_a_model_whose_weights_do_not_load_leaves_the_others(tmp_path, capsys):
    folder = write_model(tmp_path / "broken")
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    argv = ["bench", "--models", f"clip:local-dir:{folder}", "tiny-clip", "--attacks", "clean", "--datasets", "digits", "--limit", "8",
            "--device", "cpu", "--no-report", "--out", str(tmp_path / "run")]  # fmt: skip
    assert main(argv) == 2
    assert "broken" in capsys.readouterr().err and finished(tmp_path / "run") == {("tiny-clip", "digits", "clean")}


# -- weights ---------------------------------------------------------------------------------------------------------


def test_other_weights_under_the_same_name_are_another_model_said_in_one_line(tmp_path, capsys):
    folder = tmp_path / "model"
    argv = ["bench", "--models", f"clip:local-dir:{folder}", "--attacks", "clean", "--datasets", "digits", "--limit", "8",
            "--device", "cpu", "--no-report", "--out", str(tmp_path / "run")]  # fmt: skip
    write_model(folder, seed=0, context=24)
    assert main(argv) == 0
    assert "other weights" not in capsys.readouterr().err
    write_model(folder, seed=1, context=24)
    assert main(argv) == 0
    assert capsys.readouterr().err.count("has other weights than the records") == 1
    assert len(Run.open(tmp_path / "run").cells()) == 2


@pytest.mark.parametrize("spec", ["clip:ViT-B-32/laion2b_s34b_b79k", "clip:hf-hub:org/name"])
def test_published_weights_are_identified_by_their_bytes_once_they_are_here(tmp_path, monkeypatch, spec):
    parsed, file = registry.models.spec(spec), tmp_path / "open_clip_model.safetensors"
    monkeypatch.setattr(hub, "cached", lambda repository, names: file if file.is_file() else None)
    absent = model_identity(parsed)
    found = set()
    for content in (b"one", b"another"):
        file.write_bytes(content * 50)
        found.add(model_identity(parsed))
    assert len(found | {absent}) == 3
    file.write_bytes(b"one" * 50)
    assert model_identity(parsed) in found


# -- kill -9 while growing -------------------------------------------------------------------------------------------


def test_kill_nine_during_growth(moody, tmp_path):
    """Killed again and again while it grows, the run ends as one that was never disturbed."""
    how = ["--models", "tiny-clip", "--attacks", "clean", "pgd:steps=2", "--datasets", "digits", "--eps", "2/255", "--device", "cpu",
           "--workers", "1", "--no-report"]  # fmt: skip
    small, large = ["--limit", "100"], ["--limit", "600"]
    assert main(["bench", *how, *large, "--out", str(tmp_path / "whole")]) == 0
    assert main(["bench", *how, *small, "--out", str(tmp_path / "run")]) == 0
    command = [sys.executable, "-m", "robustcal.cli", "bench", *how, *large, "--out", str(tmp_path / "run")]
    records = tmp_path / "run" / "records"
    for wanted in (3, 6):  # kill it when so many shards lie there
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(records.glob("*/*.parquet"))) < wanted:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"})
    table = [(Path(tmp_path) / name / "cells.csv").read_bytes() for name in ("run", "whole")]
    assert table[0] == table[1]
    plan = make_plan(Request((Sweep.of("tiny-clip", "clean,pgd:steps=2", "digits", "2/255", 600),)))
    run = Run.open(tmp_path / "run")
    assert not any(run.missing(cell) for cell in plan.cells)
    names = sorted(path.name for path in records.glob("*/*.parquet"))
    assert names == sorted(path.name for path in (tmp_path / "whole" / "records").glob("*/*.parquet"))


def test_what_another_driver_met_is_told_here_too(moody, tmp_path, monkeypatch):
    """A cell that another driver marks as failed while this one works is left out, and is no success."""
    monkeypatch.setenv("MOODY", "")
    out, marked = tmp_path / "run", []

    def other_driver(event):
        cells = Run.open(out).cells()
        if not marked and cells:
            (cell,) = [cell for cell in cells if cell.attack.startswith("moody")]
            marked.append(cell.id)
            Run.open(out).fail(cell.id, "out of memory there")

    how = {"models": ["tiny-clip"], "attacks": ["clean", "moody"], "datasets": ["digits"], "eps": "1/255", "limit": 8, "device": "cpu", "workers": 1}
    with pytest.warns(RuntimeWarning, match="out of memory there"):
        run = robustcal.bench(plugins=[moody], out=out, progress=other_driver, **how)
    assert [failure.reason for failure in run.failures] == ["out of memory there"]


def test_a_model_that_does_not_load_here_is_left_to_others(tmp_path, capsys):
    """What is refused before the sweep is this machine's matter: the run keeps no failure that would stop another driver."""
    folder = write_model(tmp_path / "broken")
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    argv = ["bench", "--models", f"clip:local-dir:{folder}", "tiny-clip", "--attacks", "clean", "--datasets", "digits", "--limit", "8",
            "--device", "cpu", "--no-report", "--out", str(tmp_path / "run")]  # fmt: skip
    assert main(argv) == 2
    assert not Run.open(tmp_path / "run").failures()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "failed: clip:local-dir" in capsys.readouterr().out
