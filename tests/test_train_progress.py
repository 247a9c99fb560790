"""What a training run prints: time left and a table for a person, one JSON object per event for a program."""

from __future__ import annotations

import json

from robustcal.cli import main
from robustcal.cli.training import TrainingProgress, held_out_table, print_json

STEP = {"kind": "step", "step": 20, "total": 40, "loss": 1.2345, "images_per_second": 99.6, "seconds_left": 75, "lr": 0.1}
MEASURED = {
    "kind": "evaluation", "step": 20, "cifar10_clean_accuracy": 0.5, "cifar10_clean_ece": 0.25, "tiny-imagenet_clean_accuracy": 0.125,
    "tiny-imagenet_clean_ece": 0.0625, "tiny-imagenet_robust_accuracy": 0.03, "shape_accuracy": 0.75,
}  # fmt: skip


def test_the_table_is_aligned_and_holds_every_number_once():
    lines = held_out_table(MEASURED).splitlines()
    assert [line.split() for line in lines] == [
        ["accuracy", "ECE", "attacked", "accuracy"], ["cifar10", "0.500", "0.250"],
        ["tiny-imagenet", "0.125", "0.062", "0.030"], ["shape", "0.750"],
    ]  # fmt: skip
    ends = [lines[0].index("accuracy") + len("accuracy"), lines[0].index("ECE") + len("ECE"), len(lines[0])]
    for line in lines[1:]:
        cells = line.split()[1:]
        assert [line.index(cell, 16) + len(cell) for cell in cells] == ends[: len(cells)]


def test_one_source_needs_no_name():
    assert held_out_table({"clean_accuracy": 0.5, "step": 3}).splitlines()[1].split() == ["source", "0.500"]


def test_a_person_reads_loss_time_left_and_the_table(capsys):
    progress = TrainingProgress()
    for event in ({"kind": "start", "step": 10, "total": 40, "processes": 2}, STEP, STEP, MEASURED, {"kind": "done", "path": "x"}):
        progress(event)
    said = capsys.readouterr().out
    assert "40 steps, going on after step 10, 2 processes" in said
    assert said.count("step 20/40  loss 1.234, 100 images/s, about 1 min 15 s left") == 1  # the second one comes too soon
    assert "held out, step 20\n" in said and "kind=" not in said


def test_a_program_reads_json(capsys):
    for event in (STEP, MEASURED):
        print_json(event)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [STEP, MEASURED]


def test_the_command_prints_either(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.toml").write_text(
        'task = "pretrain"\nsources = ["world-source:size=40"]\nsteps = 2\nbatch = 4\nwidth = 8\nheld_out = 4\ncalibrate = 4\n'
        "eval_steps = 0\nlog_every = 1\ncontext = 24\n"
    )
    for log in ("text", "json"):
        assert main(["train", "few.toml", "--out", log, "--log", log, "--device", "cpu"]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert last.startswith(f"trained: {log}")
        if log == "json":
            kinds = [json.loads(line)["kind"] for line in lines]
            assert kinds == ["start", "step", "step", "evaluation", "checkpoint", "done"]
        else:
            assert lines[0] == "2 steps" and lines[-1].split()[-2:] != [] and any("accuracy" in line for line in lines)


def test_any_setting_is_replaced_and_checked(tmp_path, capsys):
    few = tmp_path / "few.toml"
    few.write_text('task = "pretrain"\nsources = ["world-source:size=40"]\nbatch = 4\nwidth = 8\nheld_out = 4\ncalibrate = 4\neval_steps = 0\ncontext = 24\n')
    run = tmp_path / "run"
    assert main(["train", str(few), "--steps", "1", "--device", "cpu", "--out", str(run), "--set", "lr=3e-4", "--set", "pad=2", "flip=true"]) == 0
    recipe = json.loads((run / "card.json").read_text())["recipe"]
    assert (recipe["lr"], recipe["pad"], recipe["flip"]) == (3e-4, 2, True)
    capsys.readouterr()
    for given, said in {
        "lr": "--set 'lr' is not NAME=VALUE", "lr=": "is not NAME=VALUE", "=3": "is not NAME=VALUE", "seed=3": "an option of its own, --seed 3",
        "data_root=x": "an option of its own, --data-root x", "learning=1": "no recipe has a setting 'learning'", "progress=1": "no recipe has a setting", "resume=false": "no recipe has a setting", "lr=fast": "lr", "pad=-1": "pad",
        "objective=ucat": "an option of its own",
    }.items():  # fmt: skip
        assert main(["train", str(few), "--steps", "1", "--out", str(tmp_path / "other"), "--set", given]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, (given, error)
    assert main(["train", str(few), "--set", "lr=1", "lr=2"]) == 2 and "lr twice" in capsys.readouterr().err
