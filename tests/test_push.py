"""A trained run on the hub: its model card read by the hub's own client, sent to a stand-in, and nothing of the machine in it."""

from __future__ import annotations

import json
import sys
import types

import pytest
from synthetic_run import make_run

from robustcal.cli import main
from robustcal.records.store import Run

hub = pytest.importorskip("huggingface_hub")

CARD = {
    "title": "Tiny UCAT", "method": "ucat", "base": "clip:ViT-B-32/openai", "steps": 40, "seed": 0, "source_data": "tiny-imagenet:split=val",
    "held_out": {"clean_accuracy": 0.5, "clean_ece": 0.04, "robust_accuracy": 0.25, "robust_ece": 0.2},
    "recipe": {"dataset": ["folder:/home/me/secret"], "model": "ucat:/home/me/my base", "templates": ["a photo / drawing of a {}"]}, "command": "robustcal train --out /home/me/x",
    "versions": {"robustcal": "0.2.0"},
}  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    run = tmp_path / "my-ucat"
    run.mkdir()
    (run / "card.json").write_text(json.dumps(CARD))
    (run / "model.safetensors").write_bytes(b"weights")
    return run


@pytest.fixture
def stand_in(monkeypatch):
    """A hub that keeps what it is sent."""
    sent = {}

    class Api:
        def create_repo(self, repo, exist_ok):
            sent["repo"] = repo

        def create_commit(self, repo, operations, commit_message):
            for one in operations:
                with one.as_file() as file:
                    sent[one.path_in_repo] = file.read()
            return types.SimpleNamespace(commit_url=f"https://hub/{repo}/commit/1")

    monkeypatch.setattr(hub, "HfApi", Api)
    return sent


def results_of(text):
    """The results in a model card, as the hub's own client reads them."""
    return hub.ModelCard(text).data.eval_results


def test_a_run_is_sent_with_its_held_out_numbers(trained, stand_in, capsys):
    assert main(["push", str(trained), "--repo", "me/ours"]) == 0
    assert "https://hub/me/ours/commit/1" in capsys.readouterr().out and stand_in["repo"] == "me/ours"
    assert stand_in["model.safetensors"] == b"weights" and set(stand_in) == {"repo", "README.md", "card.json", "model.safetensors"}
    found = {(one.dataset_config, one.metric_type): one.metric_value for one in results_of(stand_in["README.md"].decode())}
    assert found == {("clean", "accuracy"): 0.5, ("clean", "ece"): 0.04, ("robust", "accuracy"): 0.25, ("robust", "ece"): 0.2}


def test_no_path_of_the_machine_is_sent(trained, stand_in):
    main(["push", str(trained), "--repo", "me/ours"])
    for name in ("README.md", "card.json"):
        assert b"/home/me" not in stand_in[name] and str(trained.parent).encode() not in stand_in[name]
    assert json.loads(stand_in["card.json"])["base"] == CARD["base"]


def test_results_of_a_bench_with_their_protocol(trained, tmp_path, capsys):
    run = make_run(tmp_path / "bench", models=("clip", f"ucat:{trained}"), datasets=("digits",), attacks=("clean", "pgd"), radii=("2/255",), n=60)
    assert main(["push", str(trained), "--repo", "me/ours", "--results", str(run.path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    found = [one for one in results_of(text) if one.dataset_name == "digits"]
    held = {cell.kind: cell.id for cell in Run.open(run.path).cells() if cell.model.startswith("ucat")}
    for kind, under in (("clean", "clean"), ("white-box", "pgd within ℓ∞ 2/255")):
        value = next(one.metric_value for one in found if one.dataset_config == under and one.metric_type == "accuracy")
        assert value == pytest.approx(run.read(held[kind])["correct"].mean(), abs=1e-6)
    attacked = next(one for one in found if "pgd" in one.dataset_config)
    assert attacked.metric_args["samples"] == "60 of 60" and attacked.metric_args["return rule"].startswith("best")
    assert str(tmp_path) not in text


def test_a_card_names_authors_and_licence(trained, tmp_path, capsys):
    lines = ['[[model]]', 'model = "ucat"', 'name = "Ours"', 'authors = "Jo"', 'training_data = "T"', 'licence = "MIT"']
    (tmp_path / "card.toml").write_text("\n".join(lines))
    assert main(["push", str(trained), "--repo", "me/ours", "--card", str(tmp_path / "card.toml"), "--dry-run"]) == 0
    data = hub.ModelCard(capsys.readouterr().out).data
    assert data.license == "mit" and data.model_name == "Ours"


def test_a_dry_run_sends_nothing(trained, monkeypatch, capsys):
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("it talked to the hub"))
    assert main(["push", str(trained), "--repo", "me/ours", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("---\n")


def one_line(capsys):
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_cannot_be_done_is_a_line(trained, tmp_path, monkeypatch, capsys):
    class Api:
        def create_repo(self, repo, exist_ok):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "HfApi", Api)
    assert main(["push", str(trained), "--repo", "me/ours"]) == 2
    assert "was not written: no route to host" in one_line(capsys)
    assert main(["push", str(tmp_path), "--repo", "me/ours"]) == 2
    assert "no finished run of robustcal train" in one_line(capsys)
    run = make_run(tmp_path / "bench", models=("clip",), datasets=("digits",), attacks=("clean",), n=20)
    assert main(["push", str(trained), "--repo", "me/ours", "--results", str(run.path)]) == 2
    assert "did not measure" in one_line(capsys)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["push", str(trained), "--repo", "me/ours"]) == 2
    assert "robustcal[huggingface]" in one_line(capsys)
