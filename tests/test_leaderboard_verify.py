"""A submission made by models is attacked again by whoever runs the board, without its logits too; forged records are found."""

from __future__ import annotations

import json

import pytest
from submissions import forged
from test_leaderboard_hostile import columns

from robustcal.cli import main
from robustcal.leaderboard.pack import pack
from robustcal.leaderboard.verb import leaderboard
from robustcal.records.store import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "run"
    words = ["--models", "tiny-clip", "--attacks", "clean", "fgsm", "--datasets", "digits", "--eps", "8/255", "--limit", "16"]
    assert main(["bench", *words, "--workers", "1", "--no-report", "--quiet", "--out", str(path)]) == 0
    return Run.open(path)


def verdict(path, tmp_path):
    assert main(["unpack", str(path), "--out", str(tmp_path / "run")]) == 0
    return main(["verify", str(tmp_path / "run"), "--samples", "32", "--by", "board", "--out", str(tmp_path / "signoff.json")])


def test_an_honest_submission_holds_without_its_logits(run, tmp_path):
    pack(run, tmp_path / "s.zip")
    assert verdict(tmp_path / "s.zip", tmp_path) == 0
    made = leaderboard([tmp_path / "s.zip", tmp_path / "signoff.json"], tmp_path / "site", resamples=20)
    assert "checked: 32 of 32, by board" in made.index.read_text()


def test_records_that_could_be_but_are_not_true_are_refuted(run, tmp_path):
    """All right, and everything a reader can compare made to fit: only attacking again tells."""

    def change(found):
        found["correct"][:], found["prediction"][:], found["label_probability"][:] = True, found["label"], found["confidence"]

    pack(run, tmp_path / "s.zip")
    assert verdict(forged(tmp_path / "s.zip", tmp_path / "bad.zip", columns(change)), tmp_path) == 1
    assert json.loads((tmp_path / "signoff.json").read_text())["disagree"]
    made = leaderboard([tmp_path / "bad.zip", tmp_path / "signoff.json"], tmp_path / "site", resamples=20)
    assert 'data-checked="refuted"' in made.index.read_text()
