"""`--explain`: everything that made a number."""

from __future__ import annotations

import pytest
from synthetic_run import make_run

from robustcal.report.explain import explain
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explain") / "run", models=("clip", "ucat"), n=40)


def test_it_names_everything_that_made_the_number(run):
    cell = next(c for c in run.cells() if (c.model, c.attack, c.eps) == ("clip", "pgd", "2/255"))
    shown = explain([run], cell.id[:10])
    records = run.read(cell.id)
    assert f"{100 * records['correct'].mean():.6g} %" in shown
    for piece in (cell.id, "clip", "digits", "pgd", "2/255", "ℓ∞ ball", "best: the highest-loss iterate", "32 pixels", "seed", "a photo of a {}",
                  cell.identity.weights, cell.identity.data, "zero-gradients", "robustcal bench --models clip ucat", "torch", "2.15.0"):  # fmt: skip
        assert piece in shown, piece


def test_a_worst_case_lists_what_it_was_taken_over(run):
    from robustcal.report.evaluate import evaluate

    worst = evaluate([run], resamples=20).get("clip", "letters", "worst", "1/255")
    shown = explain([run], worst.id)
    for member in worst.meta.members:
        assert member in shown


def test_each_member_stands_beside_its_own_attack(run):
    from robustcal.report.evaluate import evaluate

    worst = evaluate([run], resamples=20).get("clip", "letters", "worst", "1/255")
    attacks = {c.id: c.attack for c in run.cells()}
    lines = [line.split() for line in explain([run], worst.id).splitlines()]
    for member in worst.meta.members:
        assert [member, attacks[member]] in lines


def test_an_unknown_cell_is_one_line(run):
    with pytest.raises(UserError, match="no cell"):
        explain([run], "nope")


def test_every_interval_says_how_it_was_made(run):
    from robustcal.report.evaluate import evaluate

    results = evaluate([run], resamples=1000)
    cell = results.get("clip", "digits", "pgd", "2/255")
    lines = explain([run], cell.id).splitlines()
    how = {line.split()[0]: line for line in lines if line.startswith("  ") and "]  " in line}
    assert how["accuracy"].endswith("score") and "percentiles" in how["confidence"]
    for name in ("ece", "ece_debiased", "mce", "overconfidence"):
        assert "inverted test" in how[name], name
    assert {line.split()[0] for line in lines if "]  " in line} == set(cell.numbers.values) - {"n"}
    about = "\n".join(lines)
    assert "can lie above its own interval" in about and "Wilson" in about and "two estimates of the same true error" in about


def test_a_number_above_its_own_interval_says_so():
    from robustcal.report.explain import outside

    assert outside(0.5, 0.4, 0.6) == "" and outside(0.0, 0.0, 0.0) == ""
    assert "above" in outside(0.5, 0.1, 0.4) and "below" in outside(0.05, 0.1, 0.4)
