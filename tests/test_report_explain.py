"""`--explain`: everything that made a number."""

from __future__ import annotations

import pytest

from robustcal.report.explain import explain
from robustcal.types import UserError
from synthetic_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explain") / "run", models=("clip", "ucat"), n=40)


def test_it_names_everything_that_made_the_number(run):
    cell = next(c for c in run.cells() if (c["model"], c["attack"], c["eps"]) == ("clip", "pgd", "2/255"))
    shown = explain([run], cell["id"][:10])
    records = run.read(cell["id"])
    assert f"{100 * records['correct'].mean():.6g} %" in shown
    for piece in (cell["id"], "clip", "digits", "pgd", "2/255", "ℓ∞ ball", "best: the highest-loss iterate", "32 pixels", "seed", "a photo of a {}",
                  cell["identity"]["weights"], cell["identity"]["data"], "zero-gradients", "robustcal bench --models clip ucat", "torch", "2.15.0"):  # fmt: skip
        assert piece in shown, piece


def test_a_worst_case_lists_what_it_was_taken_over(run):
    from robustcal.report.evaluate import evaluate

    worst = evaluate([run], resamples=20).get("clip", "letters", "worst", "1/255")
    shown = explain([run], worst.id)
    for member in worst.meta["members"]:
        assert member in shown


def test_each_member_stands_beside_its_own_attack(run):
    from robustcal.report.evaluate import evaluate

    worst = evaluate([run], resamples=20).get("clip", "letters", "worst", "1/255")
    attacks = {c["id"]: c["attack"] for c in run.cells()}
    lines = [line.split() for line in explain([run], worst.id).splitlines()]
    for member in worst.meta["members"]:
        assert [member, attacks[member]] in lines


def test_an_unknown_cell_is_one_line(run):
    with pytest.raises(UserError, match="no cell"):
        explain([run], "nope")
