"""The main job, end to end, as a user runs it: sweep, resume, kill, damage, plugins, bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import robustcal
from robustcal.cli import main
from robustcal.records.store import Run

MODEL = '''
"""A small random network that can be given any classes; no training, no download."""
import time
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

class Random:
    fingerprint = "random-0"
    def classifier(self, classnames, templates=()):
        generator = torch.Generator().manual_seed(0)
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(6), torch.nn.Flatten(), torch.nn.Linear(108, len(classnames)))
        body[2].weight.data = torch.randn(len(classnames), 108, generator=generator)
        body[2].bias.data.zero_()
        return LogitClassifier(body, classnames)

@register.model
def test_random(*, scale: float = 1.0):
    """A random linear network."""
    return Random()

@register.attack(kind="white-box", returns="last")
def test_slow(classifier, images, labels, threat, noise, *, seconds: float = 0.3):
    """Noise that takes its time, so that a kill hits the middle of a shard."""
    time.sleep(seconds)
    return images + threat.eps * torch.sign(noise.uniform(images.shape[1:], -1, 1))
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(MODEL)
    yield str(path)
    from robustcal import registry

    registry.models.plugins.pop("test-random", None)
    registry.attacks.plugins.pop("test-slow", None)


def arguments(plugin, out, *more, attacks=("clean", "pgd:steps=3", "cw:steps=3")):
    return ["bench", "--plugin", plugin, "--models", "test-random", "--attacks", *attacks, "--datasets", "digits",
            "world-shapes", "--eps", "1/255,8/255", "--limit", "150", "--device", "cpu", "--no-report", "--out", str(out), *more]  # fmt: skip


def command(*args):
    return [sys.executable, "-m", "robustcal.cli", *args]


def test_a_sweep_makes_records_cells_and_a_worst_row(plugin, tmp_path):
    out = tmp_path / "run"
    assert main(arguments(plugin, out, "--workers", "1")) == 0
    cells = pd.read_csv(out / "cells.csv")
    for name in ("accuracy", "ece", "confidence", "entropy", "nll", "brier"):
        assert (cells[name + "_lo"] <= cells[name] + 1e-12).all() and (cells[name] <= cells[name + "_hi"] + 1e-12).all(), name
    assert {"au", "eu", "au_lo", "eu_hi", "flags", "model", "dataset", "attack", "eps", "n"} <= set(cells.columns)
    assert set(cells.n) == {150}
    run = Run.open(out)
    assert len(run.cells()) == 2 * (1 + 2 * 2)
    worst = cells[cells.attack == "worst"]
    assert len(worst) == 4
    for _, row in worst.iterrows():
        same = cells[(cells.dataset == row.dataset) & (cells.eps == row.eps) & (cells.attack != "worst") & (cells.attack != "clean")]
        assert row.accuracy <= same.accuracy.min() + 1e-12
    header = json.loads((out / "run.json").read_text())
    assert header["versions"]["torch"] and header["invocations"][0]["request"]["seed"] == 0
    records = run.read(run.cells()[0].id)
    for column in robustcal.types.RECORD_COLUMNS:
        assert column in records, column


def test_the_same_command_again_computes_nothing(plugin, tmp_path, capsys):
    out = tmp_path / "run"
    main(arguments(plugin, out, "--workers", "1"))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    cells = (out / "cells.csv").read_bytes()
    capsys.readouterr()
    assert main(arguments(plugin, out, "--workers", "1")) == 0
    assert "0 shards to compute" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before
    assert (out / "cells.csv").read_bytes() == cells


def test_workers_order_and_resume_give_the_identical_table(plugin, tmp_path):
    main(arguments(plugin, tmp_path / "one", "--workers", "1"))
    assert subprocess.run(command(*arguments(plugin, tmp_path / "two", "--workers", "2")), capture_output=True).returncode == 0
    main(arguments(plugin, tmp_path / "part", "--workers", "1", attacks=("cw:steps=3",)))
    main(arguments(plugin, tmp_path / "part", "--workers", "1"))
    one, two, part = ((tmp_path / name / "cells.csv").read_bytes() for name in ("one", "two", "part"))
    assert one == two == part


def claims_of(out):
    """The claims of a run and when each was taken."""
    found = {}
    for path in out.glob("claims/*-*"):
        try:
            found[path.name] = path.stat().st_mtime_ns
        except FileNotFoundError:  # released meanwhile
            continue
    return found


def test_kill_nine_at_random_moments_and_continue(plugin, tmp_path):
    slow = ("clean", "test-slow:seconds=0.4", "pgd:steps=3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(plugin, whole, "--workers", "1", attacks=slow)) == 0
    generator = np.random.default_rng(0)
    kept = 0
    for attempt in range(3):
        before = claims_of(killed)
        process = subprocess.Popen(
            command(*arguments(plugin, killed, "--workers", "2", attacks=slow)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while claims_of(killed) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        while attempt == 2 and not list(killed.rglob("records/*/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.02)  # a slow machine: the last kill leaves something to keep
        time.sleep(generator.uniform(0.2, 1.5))
        # Once the driver alone is killed, and its workers must notice; else everything at once.
        os.kill(process.pid, signal.SIGKILL) if attempt == 0 else os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept = max(kept, len(list(killed.rglob("records/*/*.parquet"))))
    assert kept > 0
    finish = subprocess.run(command(*arguments(plugin, killed, "--workers", "1", attacks=slow)), capture_output=True, text=True)
    assert finish.returncode == 0, finish.stderr
    assert (killed / "cells.csv").read_bytes() == (whole / "cells.csv").read_bytes()
    assert not [p for p in killed.rglob("claims/*") if p.is_file() and not p.name.startswith(".")]


def test_a_truncated_or_foreign_shard_is_named_and_recomputed(plugin, tmp_path, capsys):
    out = tmp_path / "run"
    main(arguments(plugin, out, "--workers", "1"))
    cells = (out / "cells.csv").read_bytes()
    one, other = sorted(out.rglob("00000.parquet"))[:2]
    one.write_bytes(one.read_bytes()[:-100])
    other.write_bytes(max(out.rglob("00001-22.parquet")).read_bytes())
    capsys.readouterr()
    assert main(arguments(plugin, out, "--workers", "1")) == 0
    captured = capsys.readouterr()
    assert str(one) in captured.err and str(other) in captured.err
    assert "2 shards to compute" in captured.out
    assert (out / "cells.csv").read_bytes() == cells


def test_python_mirrors_the_command_line(plugin, tmp_path):
    run = robustcal.bench(
        models=["test-random"], attacks=["clean", "pgd:steps=2"], datasets="digits", eps="2/255", limit=40,
        plugins=[plugin], out=tmp_path / "run", device="cpu", workers=1,
    )  # fmt: skip
    assert len(run.samples) == 80 and len(run.cells) == 2
    assert run.cells.set_index("attack").loc["clean", "accuracy"] == pytest.approx(
        run.samples[run.samples.attack == "clean"].correct.mean()
    )


def test_a_script_without_a_main_guard_may_use_several_workers(plugin, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import robustcal\nprint('once')\n"
        f"run = robustcal.bench(models='test-random', attacks='clean', datasets=['digits', 'world-shapes'], limit=20,"
        f" plugins=[{plugin!r}], out={str(tmp_path / 'run')!r}, device='cpu', workers=2)\nprint(len(run.cells))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.split() == ["once", "2"], done.stderr


def test_attack_returns_projected_images_and_repeats():
    import torch

    classifier = robustcal.clip.classifier.LogitClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), "abcde")
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    one = robustcal.attack("pgd:steps=3", classifier, images, labels, eps="8/255", seed=1)
    again = robustcal.attack("pgd:steps=3", classifier, images[2:4], labels[2:4], eps="8/255", ids=["2", "3"], seed=1)
    assert (one - images).abs().max() <= 8 / 255 + 1e-7 and one.min() >= 0 and one.max() <= 1
    assert torch.allclose(one[2:4], again)
    with pytest.raises(robustcal.UserError, match=r"\[0, 1\]"):
        robustcal.attack("pgd", classifier, images * 255, labels, eps=0.1)


def test_dry_run_computes_and_writes_nothing(plugin, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(arguments(plugin, out, "--dry-run")) == 0
    text = capsys.readouterr().out
    assert "10 cells: 1 model x 3 attacks x 2 datasets" in text and "1,500 in 20 shards" in text and "forward passes" in text and "about" in text
    assert not out.exists()


BAD = {
    "unknown model": (["--models", "clpi"], "did you mean"),
    "unknown attack": (["--attacks", "pdg"], "did you mean"),
    "unknown dataset": (["--datasets", "digist"], "did you mean"),
    "unknown suite": (["--suite", "papre"], "there are"),
    "malformed spec": (["--attacks", "pgd:=3"], "malformed"),
    "negative eps": (["--eps=-1/255"], "negative"),
    "eps that is no number": (["--eps", "big"], "not a number"),
    "eps beyond the pixel range": (["--attacks", "pgd", "--eps", "4"], "4/255"),
    "zero samples": (["--limit", "0"], "no sample"),
    "missing checkpoint": (["--models", "clip:no/such/file.pt"], "no/such/file.pt"),
    "missing folder": (["--datasets", "folder:no/such/folder"], "no/such/folder"),
    "missing suite file": (["--suite", "nowhere.toml"], "nowhere.toml"),
    "missing plugin file": (["--plugin", "nowhere.py"], "nowhere.py"),
    "bad batch size": (["--batch-size", "none"], "batch-size"),
    "unknown device": (["--device", "cuda:99"], "cuda:99"),
    "unknown option": (["--modles", "clip"], "modles"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_exit_2_and_one_line(case, tmp_path, capsys):
    extra, hint = BAD[case]
    base = ["bench", "--out", str(tmp_path / "run")]
    for option, value in (("--models", "tiny-clip"), ("--attacks", "clean"), ("--datasets", "digits")):
        if option not in extra:
            base += [option, value]
    assert main([*base, *extra]) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1 and error.startswith("robustcal: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes, hint", [(1, "one class, 'cat'"), (2, "torchattacks:APGDT needs 4 classes")])
def test_too_few_classes_are_refused_before_anything_is_computed(classes, hint, tmp_path, capsys):
    from PIL import Image

    for name in ("cat", "dog")[:classes]:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / name / "a.png")
    args = ["bench", "--models", "tiny-clip", "--attacks", "torchattacks:APGDT", "--datasets", f"folder:{tmp_path / 'pictures'}"]
    assert main([*args, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_an_unreadable_image_is_named_before_anything_is_computed(plugin, tmp_path, capsys):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "pets" / name / "one.png")
    (tmp_path / "pets" / "dog" / "two.png").write_bytes(b"this is not an image")
    args = arguments(plugin, tmp_path / "run")
    args[args.index("digits") : args.index("digits") + 2] = [f"folder:{tmp_path / 'pets'}"]
    assert main(args) == 2
    *failed, after = capsys.readouterr().err.splitlines()
    assert failed and all(line.startswith("robustcal: failed: ") and "two.png" in line for line in failed)
    assert "1 of 3 images" in after and "--skip-unreadable" in after  # nothing else was asked for: that is the error
    assert not list((tmp_path / "run").rglob("*.parquet"))


def test_a_folder_without_classes_is_refused(plugin, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    args = arguments(plugin, tmp_path / "run")
    args[args.index("digits") : args.index("digits") + 2] = [f"folder:{tmp_path / 'empty'}"]
    assert main(args) == 2
    assert "empty" in capsys.readouterr().err


def test_output_that_cannot_be_used_is_refused(plugin, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"format": 0}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    for name, hint in (("file", "not a run directory"), ("folder", "not a run directory"), ("old", "incompatible"), ("broken", "not a robustcal run")):
        assert main(arguments(plugin, tmp_path / name, "--workers", "1")) == 2
        error = capsys.readouterr().err
        assert hint in error and error.count("\n") == 1
    assert (tmp_path / "folder" / "precious.txt").read_text() == "mine"
    assert main(arguments(plugin, "/proc/nowhere/run", "--workers", "1")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_continue(plugin, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments(plugin, out, "--workers", "1", attacks=("clean", "test-slow:seconds=1"))),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # Where the tests themselves run in the background, SIGINT is ignored and would stay so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(out.rglob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "again to continue" in error and "Traceback" not in error
    assert list(out.rglob("*.parquet"))


def test_many_labels_go_all_the_way_to_a_table(tmp_path, monkeypatch, capsys):
    from test_datasets_coco import ROWS, coco

    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    coco(tmp_path, ROWS)
    annotations = tmp_path / "coco2017" / "annotations" / "instances_val2017.json"  # names that fit in 16 tokens
    annotations.write_text(annotations.read_text().replace("traffic light", "sign").replace("toothbrush", "tool"))
    out = tmp_path / "run"
    assert main(["bench", "--models", "tiny-clip", "--attacks", "clean", "cw:steps=2", "pgd:steps=2:loss=bce", "--eps", "2/255",
                 "--datasets", "coco-2017:check=false:resolution=48", "--device", "cpu", "--workers", "1", "--out", str(out)]) == 0  # fmt: skip
    assert "mAP" in capsys.readouterr().out
    run = Run.open(out)
    records = run.read(run.cells()[0].id)
    by_id = sorted(zip(map(str, records["id"]), records["labels"]), key=lambda row: row[0])
    assert [sorted(row.tolist()) for _, row in by_id] == [[0, 2], [], [1], [0]]
    assert (out / "report" / "index.html").is_file()
