"""A run packed into one file: the same bytes every time, all of its records, and nothing of the machine that made it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cells import cell
from submissions import SMALL, members_of, submission
from synthetic_run import make_run, records

from robustcal.cli import main
from robustcal.leaderboard.card import read_card
from robustcal.leaderboard.pack import pack, template_of
from robustcal.leaderboard.reading import read_submission
from robustcal.records.content import content_hash
from robustcal.records.portable import portable, portable_cell
from robustcal.records.store import Run
from robustcal.report.frame import csv_text
from robustcal.types import UserError

FILLED = '''submitter = "Jo, X University"
[[model]]
model = "ucat"
name = "Ours"
authors = "Jo"
training_data = "TinyImageNet"
licence = "MIT"
link = "https://example.org/ours"
'''


def test_the_same_run_makes_the_same_bytes(tmp_path):
    one, two = submission(tmp_path / "a"), submission(tmp_path / "b")
    assert one.read_bytes() == two.read_bytes()
    os.utime(one.parent / "one" / "run.json", (1, 1))
    pack(Run.open(one.parent / "one"), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == one.read_bytes()


def test_a_submission_read_back_is_the_run(tmp_path):
    path = submission(tmp_path, models=("clip", "ucat"), n=300)
    found = read_submission(path, tmp_path / "back", apart=False)
    assert csv_text([found.run]) == csv_text([Run.open(tmp_path / "one")])
    assert found.records == content_hash(Run.open(tmp_path / "one"))


def test_many_labels_and_logits_travel(tmp_path):
    run = make_run(tmp_path / "run", **SMALL, multi=True)
    pack(run, tmp_path / "s.zip")  # their numbers need the logits
    back = read_submission(tmp_path / "s.zip", tmp_path / "back", apart=False).run
    for one in run.cells():
        before, after = run.read(one.id), back.read(one.id)
        assert before.keys() == after.keys()
        for name in before:
            assert np.array_equal(np.asarray(list(before[name])), np.asarray(list(after[name]))), name


def test_samples_without_a_row_stay_without(tmp_path):
    run = Run.create(tmp_path / "run", {"command": ""})
    made = cell("clean", model="ucat", n=130, skip_unreadable=True)
    run.add_cell(made)
    rows = records(128, 10, 0.0, 60, 0)
    run.write_shard(made.id, 0, {k: v[:126] for k, v in rows.items()}, ("bad/1", "bad/2"))
    run.write_shard(made.id, 1, {k: v[126:] for k, v in rows.items()})
    pack(run, tmp_path / "s.zip")
    back = read_submission(tmp_path / "s.zip", tmp_path / "back", apart=False).run
    assert back.skipped(made.id) == ["bad/1", "bad/2"] and back.cells()[0].skipped == 2
    assert list(back.read(made.id)["id"]) == list(run.read(made.id)["id"])


# -- nothing of the machine ------------------------------------------------------------------------------------------
SPECS = ("ucat:{}/weights.pt:base=clip:ViT-B-32/openai", "tecoa:runs/mine", "open-clip:local-dir:{}", "checkpoint:~/x.pt")


def test_no_path_and_no_host_name_is_in_the_bytes(tmp_path):
    secret = tmp_path / "secret-folder"
    run = Run.create(secret / "run", {"command": f"robustcal bench --out {secret}/run"})
    for spec in SPECS:
        for attack in ("clean", f"transfer:from=ucat:{secret}/w.pt"):
            made = cell(
                attack, "1/255", model=spec.format(secret), weights=f"sha256 of {spec[:4]}", n=20, dataset=f"folder:{secret}/pictures",
                training={"seed": 0, "source_data": f"folder:{secret}/train"},
            )  # fmt: skip
            run.add_cell(made)
            run.write_shard(made.id, 0, records(20, 10, 0.0, 60, 0))
    pack(run, tmp_path / "s.zip")
    data = (tmp_path / "s.zip").read_bytes()
    for text in ("secret-folder", str(tmp_path), str(Path.home()) + "/", "runs/mine", "x.pt", socket.gethostname() + "."):
        assert text.encode() not in data, text
    assert b"ViT-B-32/openai" in data
    found = read_submission(tmp_path / "s.zip", tmp_path / "back", apart=False)
    assert len(found.card.models) == len(SPECS) and all("local-" in card.model for card in found.card.models)
    assert all(one.id == one.identity.digest() for one in found.run.cells())
    assert found.records == content_hash(run)


@pytest.mark.parametrize(
    "spec, kept",
    [
        ("clip:ViT-B-32/openai", True), ("clip:ViT-L-14-quickgelu/dfn2b", True), ("clip:hf-hub:org/name", True),
        ("huggingface:org/set:split=test", True), ("pgd:steps=10:step=1/255", True), ("tiny-ucat:base=none", True),
        ("pgd:step=0.5/255:loss=ce", True), ("ucat:/a/b", False), ("ucat:../b", False), ("ucat:runs/b", False),
        ("ucat:b.safetensors", False), (r"ucat:C:\models\b", False), ("clip:hf-hub:/abs/name", False), ("ucat:~/b", False),
        ("clip:ViT-B-32/a/b", False),
    ],
)  # fmt: skip
def test_paths_in_specs_are_told_from_names(spec, kept):
    shown = portable(spec, "weights")
    assert (shown == spec) == kept and portable(shown, "weights") == shown
    assert kept or ("local-" in shown and "/" not in shown and "\\" not in shown)


def test_a_cell_without_paths_is_unchanged():
    one = cell("pgd", model="clip:ViT-B-32/openai")
    assert portable_cell(one) == one
    other = portable_cell(cell("pgd", model="ucat:/home/me/x.pt"))
    assert other.id == other.identity.digest() and portable_cell(other) == other


def test_what_a_training_says_in_words_stays():
    facts = {"inner": "2 steps of 1/255 within 1/255", "radius": "4 / 255", "pretraining": "/home/me/base", "steps": 3}
    told = portable_cell(replace(cell("pgd", model="clip:ViT-B-32/openai"), training=facts)).training
    assert told == facts | {"pretraining": told["pretraining"]} and told["pretraining"].startswith("local-")


def test_class_names_that_are_paths_are_refused(tmp_path):
    run = make_run(tmp_path / "run", **SMALL, classnames=[f"{tmp_path}/cat", "dog"], classes=2)
    with pytest.raises(UserError, match=r"would tell .* of this machine, in cells.json"):
        pack(run, tmp_path / "s.zip")
    assert not (tmp_path / "s.zip").exists()


# -- the card --------------------------------------------------------------------------------------------------------
def test_the_template_is_a_card_that_wants_to_be_filled_in(tmp_path):
    run = make_run(tmp_path / "run", **SMALL)
    with pytest.raises(UserError, match="authors is empty; say who made it"):
        read_card(template_of(run).encode(), "card.toml")
    text = template_of(run).replace('= ""', '= "known"').replace('link = "known"', 'link = ""')
    assert read_card(text.encode(), "card.toml").models[0].model == "ucat"


def test_a_card_travels_with_its_names(tmp_path):
    run = make_run(tmp_path / "run", **SMALL)
    (tmp_path / "card.toml").write_text(FILLED)
    pack(run, tmp_path / "s.zip", tmp_path / "card.toml")
    card = read_submission(tmp_path / "s.zip", tmp_path / "back", apart=False).card
    assert card.submitter == "Jo, X University" and card.of("ucat").name == "Ours"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("licence = \"MIT\"", "licence is empty"), ("name = \"Ours\"", "name is empty"), ("[[model]]", "no key 'model'|no TOML|model"),
    ],
)  # fmt: skip
def test_what_a_card_lacks_is_said_in_a_line(tmp_path, wrong, said):
    with pytest.raises(UserError, match=said) as found:
        read_card(FILLED.replace(wrong, "").encode(), "card.toml")
    assert "\n" not in str(found.value) and "card.toml" in str(found.value)


@pytest.mark.parametrize(
    "line, said",
    [
        ('licens = "MIT"', "did you mean licence"), ('name = 3', "name is not a text"), ('paper = "a\\u0007b"', "paper is not a text"),
        ('link = "javascript:alert(1)"', "no https address"), ('paper = "\\u202Eevil"', "paper is not a text"),
        (f'paper = "{"x" * 400}"', "at most 300"), ("= =", "no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_card_is_said_in_a_line(line, said):
    kept = [text for text in FILLED.splitlines() if text.split(" ")[0] != line.split(" ")[0]]
    with pytest.raises(UserError, match=said):
        read_card("\n".join([*kept, line]).encode(), "card.toml")


def test_a_card_of_another_model_is_refused(tmp_path):
    run = make_run(tmp_path / "run", **SMALL)
    (tmp_path / "card.toml").write_text(FILLED.replace('"ucat"', '"tecoa"'))
    with pytest.raises(UserError, match="'tecoa' is none of the run's: ucat"):
        pack(run, tmp_path / "s.zip", tmp_path / "card.toml")


# -- the command -----------------------------------------------------------------------------------------------------
def test_the_command_packs_and_says_the_hash(tmp_path, capsys):
    make_run(tmp_path / "run", **SMALL)
    assert main(["pack", str(tmp_path / "run"), "--out", str(tmp_path / "s.zip")]) == 0
    said = capsys.readouterr()
    assert "2 cells" in said.out and "content: sha256:" in said.out and "--template" in said.err
    assert main(["pack", str(tmp_path / "run"), "--template"]) == 0
    assert "[[model]]" in capsys.readouterr().out
    assert main(["pack", "--template"]) == 0
    assert main(["pack", str(tmp_path / "run")]) == 2
    assert "--out FILE" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(tmp_path, capsys):
    run = make_run(tmp_path / "run", **SMALL)
    next((run.path / "records").glob("*/*.parquet")).unlink()
    assert main(["pack", str(run.path), "--out", str(tmp_path / "s.zip")]) == 2
    assert "is unfinished" in capsys.readouterr().err


def test_members_are_sorted_stored_and_dated_alike(tmp_path):
    path = submission(tmp_path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    assert [e.filename for e in entries[1:]] == sorted(members_of(path)) and entries[0].filename == "manifest.json"
    assert {(e.compress_type, e.date_time, e.create_system) for e in entries} == {(0, (1980, 1, 1, 0, 0, 0), 3)}


def test_packing_needs_no_torch(tmp_path):
    make_run(tmp_path / "run", **SMALL)
    code = (
        "import sys; sys.modules['torch'] = None\nfrom robustcal.cli import main\n"
        f"sys.exit(main(['pack', {str(tmp_path / 'run')!r}, '--out', {str(tmp_path / 's.zip')!r}])"
        f" or main(['leaderboard', {str(tmp_path / 's.zip')!r}, '--out', {str(tmp_path / 'site')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    assert (tmp_path / "site" / "index.html").read_text()[:15] == "<!doctype html>"


def test_a_submission_becomes_a_run_again(tmp_path, capsys):
    path = submission(tmp_path)
    assert main(["unpack", str(path), "--out", str(tmp_path / "back")]) == 0
    assert content_hash(Run.open(tmp_path / "back")) in capsys.readouterr().out
    assert csv_text([Run.open(tmp_path / "back")]) == csv_text([Run.open(tmp_path / "one")])
    assert main(["unpack", str(path), "--out", str(tmp_path / "back")]) == 2
    assert "choose another --out" in capsys.readouterr().err
