"""``bench --dry-run``: a plan and its cost on one screen, also of what is not on this machine."""

import re
import shlex

import pytest
import torch

from robustcal import registry
from robustcal.cli import dry_run, main, parser
from robustcal.models import hub, open_clip
from robustcal.progress import Display
from robustcal.records.store import Run
from robustcal.registry.suites import read_suite
from robustcal.sweep import estimate
from robustcal.sweep.events import Planned, ShardDone
from robustcal.sweep.plan import Plan, Request, Sweep

torch.set_num_threads(1)
PLUGIN = '''
"""A linear model without weights."""
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

class Linear:
    fingerprint = "linear-0"
    def classifier(self, classnames, templates=()):
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, len(classnames)))
        return LogitClassifier(body, classnames)

@register.model
def dry_linear():
    """A linear model."""
    return Linear()
'''


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without data, weights or network; an empty folder to work in, and one plugin. Nothing is timed for long."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(hub, "cached", lambda repository, names: None)
    monkeypatch.setattr(estimate, "PATIENCE", 0.01)
    path = tmp_path / "dry_net.py"
    path.write_text(PLUGIN)
    registry.load_plugin_file(path)
    yield tmp_path / "work"
    registry.models.plugins.pop("dry-linear", None)


def said(capsys, *arguments):
    assert main(["bench", "--dry-run", "--device", "cpu", *arguments]) == 0
    return capsys.readouterr().out


def test_the_published_comparison_is_planned_without_data_and_weights(bare, capsys):
    text = said(capsys, "--suite", "paper-16")
    assert "384 cells: 6 models x 4 attacks x 16 datasets, eps 1/255" in text
    images = 344_128  # of the sixteen sets, as their cards say
    assert f"{6 * 4 * images:,} in 64,728 shards" in text
    # Two classes (pcam) leave the paper's AutoAttack its first part alone.
    passes = {row: tuple(map(int, numbers)) for row, *numbers in re.findall(r"^(\w+)\S* +(\d+) +(\d+)$", text, flags=re.MULTILINE)}
    assert passes["clean"] == (1, 0) and passes["pgd"] == passes["cw"] == (101, 100)
    assert "863,073,024 forward passes, 830,036,736 input gradients" in text
    assert re.search(r"^time +about [\d,]+ h on \d+ cpu worker", text, flags=re.MULTILINE)
    assert "6 of 6 models and 16 of 16 datasets" in text and len(re.findall(r"  no: ", text)) == 22
    assert "robustcal train tecoa" in text and "cifar-10-python.tar.gz" in text and str(bare.parent / "data") in text
    assert re.search(r"clip:ViT-B-32/openai .* ms +\S+ ms +ViT-B-32 +no: fetch timm/vit_base_patch32_clip_224.openai", text)
    assert len(text.splitlines()) < 52 and not list(bare.iterdir())


def test_what_is_here_is_timed_itself_and_the_rest_is_named(bare, capsys):
    text = said(capsys, "--models", "dry-linear", "--attacks", "clean", "--datasets", "digits", "cifar10", "--workers", "3")
    assert re.search(r"^digits +1,797 +10 +32 +yes$", text, flags=re.MULTILINE) and re.search(r"^cifar10 .* no: ", text, flags=re.MULTILINE)
    assert re.search(r"^dry-linear .* itself +yes$", text, flags=re.MULTILINE)
    assert "on 3 cpu workers" in text and "1 of 2 datasets" in text and "models and" not in text


def test_data_that_is_fetched_by_itself_says_so_where_there_is_a_network(bare, capsys, monkeypatch):
    monkeypatch.delenv("ROBUSTCAL_OFFLINE")
    monkeypatch.setattr("robustcal.sweep.outline.reachable", lambda: True)
    text = said(capsys, "--models", "dry-linear", "--attacks", "clean", "--datasets", "cifar10", "imagenet")
    assert re.search(r"^cifar10 .* no: fetched on first use$", text, flags=re.MULTILINE)
    assert re.search(r"^imagenet .* no: put the validation images", text, flags=re.MULTILINE)


def test_time_is_the_sum_of_passes_divided_among_the_workers(bare, monkeypatch):
    monkeypatch.setattr(estimate, "seconds_per_image", lambda *_: (0.001, 0.003))
    attacks = ["clean", "pgd:steps=7:return=last", "square:queries=30"]
    request = Request((Sweep.of("dry-linear", attacks, "digits", "1/255,2/255", 300),))
    found = estimate.outlook(request, device="cpu", precision="fp32", workers=2)
    forwards = {row.spec.partition(":")[0]: row.forwards for row in found.attacks}
    assert forwards["clean"] == 1 and forwards["pgd"] == 8 and 30 <= forwards["square"] <= 33
    alone = 1 + 2 * (1 + forwards["square"])  # passes without a gradient: of clean, the judge of PGD, Square
    assert found.models[0].forwards == 300 * (1 + 2 * (8 + forwards["square"])) and found.models[0].backwards == 300 * 2 * 7
    assert found.seconds == pytest.approx(300 * (alone * 0.001 + 2 * 7 * 0.003) / 2)
    assert (found.cells, found.samples, found.shards, found.workers) == (5, 1500, 15, 2)


def test_the_size_of_the_records_is_nearly_what_a_run_takes(bare):
    arguments = ["--models", "tiny-clip", "--attacks", "clean", "fgsm", "--datasets", "digits", "world-source", "--limit", "256"]
    assert main(["bench", *arguments, "--device", "cpu", "--workers", "1", "--no-report", "--out", "run"]) == 0
    cells = Run.open("run").cells()
    taken = sum(path.stat().st_size for path in bare.glob("run/records/*/*.parquet"))
    assert abs(estimate.bytes_of(Plan(tuple(cells), {})) / taken - 1) < 0.15


def test_the_commands_that_get_what_is_missing_are_printed(bare, capsys):
    """One for every missing set and model, each of which parses; sets that nobody may fetch stand in a last line."""
    commands, hand = said(capsys, "--suite", "paper-16").partition("to get what is not here:\n")[2].rsplit("# by hand, as said above: ")
    root, loop, *lines = [shlex.split(line) for line in commands.splitlines()]
    assert root == ["export", f"ROBUSTCAL_DATA={bare.parent / 'data'}"]
    suite = read_suite("paper-16")
    fetched = {name for name in suite["datasets"] if "download" in registry.datasets.cards()[name.partition(":")[0]]}
    names, (python, option, code) = loop[: loop.index("do")], loop[loop.index("do") + 1 : loop.index("do") + 4]
    assert {name.rstrip(";") for name in names[3:]} == fetched and (python, option) == ("python", "-c")
    compile(code, "command", "exec")
    assert set(hand.strip().split(", ")) == {name.partition(":")[0] for name in suite["datasets"]} - fetched
    weights, *recipes = lines
    assert weights == ["python", "-c", "import robustcal; robustcal.load_model('clip:ViT-B-32/openai')"]
    assert [parser().parse_args(words[1:]).recipe for words in recipes] == ["tecoa", "pmg-aft", "fare", "tga-zsr", "ucat"]
    assert "export ROBUSTCAL_DATA='/my data'\n" in said(capsys, "--suite", "paper-16", "--data-root", "/my data")
    assert "to get" not in said(capsys, "--models", "tiny-clip", "--attacks", "clean", "--datasets", "digits", "--limit", "4")


@pytest.mark.parametrize("spec, arch", [("clip:ViT-L-14/openai", "ViT-L-14"), ("fare2-vit-l-14", "ViT-L-14"), ("ucat:runs/x", "ViT-B-32")])
def test_the_architecture_that_stands_in_is_the_one_the_spec_names(spec, arch):
    outline = estimate.Outline()
    assert outline.architecture(spec) is None
    outline.absent[spec] = "far away"
    assert outline.architecture(spec) == arch


def test_published_weights_are_looked_for_and_not_fetched(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("fetched"))
    monkeypatch.setattr(hub, "cached", lambda repository, names: asked.append(repository))
    assert open_clip.published("ViT-B-32/openai") == (False, "timm/vit_base_patch32_clip_224.openai")
    assert open_clip.published("hf-hub:a/b") == (False, "a/b") and open_clip.published("runs/x")[0]
    assert asked == ["timm/vit_base_patch32_clip_224.openai", "a/b"]


def test_the_time_left_does_not_count_the_loading_of_models(capsys):
    """Seconds are those of the shards themselves: a hundred of loading before the first change nothing."""
    each = {"a": 1.0}
    with Display(live=False) as display:
        display(Planned(1, 12800, 100, 100, passes={"a": 12800.0}, passes_each=each, kinds={"a": "k"}))
        for shard in range(100):
            display(ShardDone("a", shard, n=128, skipped=0, seconds=2.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "1/100 shards, about 3 min 18 s left" and lines[-1] == "100/100 shards, about 0 s left"


def test_numbers_are_written_for_people():
    assert dry_run.hours(59.6) == "1 min 0 s" and dry_run.hours(3 * 3600) == "3 h 0 min" and dry_run.hours(5e7) == "13,888 h"
    assert dry_run.size(950) == "950 bytes" and dry_run.size(6.41e9) == "6.41 GB"
    spec = str(registry.attacks.spec("pgd:steps=100:step=1/255"))
    assert dry_run.brief("attacks", spec) == "pgd:steps=100:step=1/255"
