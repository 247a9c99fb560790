"""Runs that do not share all data sets: what is there is shown, averages are over what all have, the rest is named."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import make_run

from robustcal.cli import main
from robustcal.report import layouts
from robustcal.report.averages import Averages
from robustcal.report.evaluate import Results
from robustcal.report.ragged import missing, over
from robustcal.report.report import chosen_tables, gather, text_report, text_table
from robustcal.types import UserError

MODELS, SETS, MEMBERS = ("clip", "tecoa", "ucat"), ("digits", "letters", "shapes"), (("clean", "0"), ("pgd", "1/255"), ("cw", "1/255"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("ragged") / "run"
    return gather([make_run(path, models=MODELS, datasets=SETS, radii=("1/255",), n=24).path], resamples=20)


def without(results, lost):
    """The same results less the (model, dataset, attack) given, and less the worst cases."""
    kept = [c for c in results.cells if c.kind != "worst" and (c.model, c.dataset, c.attack) not in lost]
    return Results(kept, [], results.runs)


def naive_sets(results, attack):
    """The sets on which no model lacks the attack that has it on any."""
    held = {(c.model, c.dataset) for c in results.cells if c.attack == attack}
    shown = {model for model, _ in held}
    return [d for d in dict.fromkeys(c.dataset for c in results.cells) if shown and all((m, d) in held for m in shown)]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from([*product(MODELS, SETS, ("clean", "pgd", "cw"))]), max_size=20))
def test_averages_are_over_the_sets_that_all_shown_models_have(whole, lost):
    results = without(whole, lost)
    averages = Averages(results)
    for attack, eps in MEMBERS:
        assert averages.sets((attack, eps)) == naive_sets(results, attack)
        for model in MODELS:
            cells = [results.get(model, d, attack, eps) for d in naive_sets(results, attack)]
            mean = averages.get(model, attack, eps)
            if not cells or None in cells:
                assert mean is None
            else:
                assert mean.values["accuracy"] == pytest.approx(np.mean([c.numbers.values["accuracy"] for c in cells]))
    told = missing(results, averages, MEMBERS)
    here = {(m, d, a) for m, d, (a, _) in product(averages.models, averages.datasets, MEMBERS)}
    ran = {(c.model, c.dataset, c.attack) for c in results.cells}
    asked = {place for place in here if any(other[2] == place[2] for other in ran)}
    assert bool(told) == bool(asked - ran)


def test_two_runs_with_one_set_in_common(tmp_path):
    one = make_run(tmp_path / "one", models=("clip",), datasets=("digits", "letters"), attacks=("clean", "pgd"), n=24)
    two = make_run(tmp_path / "two", models=("ucat",), datasets=("letters", "shapes"), attacks=("clean", "pgd"), n=24)
    results = gather([one.path, two.path], resamples=20)
    table = layouts.build("main", results)[0]
    row = table.numbers()[("pgd", "ucat")]
    assert row[("", "digits")].empty and row[("", "shapes")].value is not None
    assert row[("", "Average")].value == row[("", "letters")].value
    assert "Average: over the data sets that all shown models have: letters. Not in the run: ucat on digits; clip on shapes." in table.caption
    for name in ("by-eps", "ablation", "calibration"):
        found = layouts.build(name, results)[0]
        assert len(found.rows) >= 2 and "all shown models have: letters" in found.caption and "ucat on digits" in found.caption


def test_an_attack_on_fewer_sets_does_not_hide_the_others(whole):
    results = without(whole, {(m, d, "cw") for m in MODELS for d in ("letters", "shapes")})
    table = layouts.build("main", results)[0]
    numbers = table.numbers()
    assert numbers[("cw", "ucat")][("", "Average")].value == numbers[("cw", "ucat")][("", "digits")].value
    mean = np.mean([numbers[("pgd", "ucat")][("", d)].value for d in SETS])
    assert numbers[("pgd", "ucat")][("", "Average")].value == pytest.approx(mean)
    assert "clean and pgd over digits, letters and shapes; cw over digits" in table.caption
    assert "any model under cw at 1/255 on letters and shapes" in table.caption
    clean = numbers[("clean", "ucat")][("", "digits")].value
    robust = numbers[("cw", "ucat")][("", "digits")].value
    assert numbers[("cw", "ucat")][("", "H")].value == pytest.approx(2 * clean * robust / (clean + robust))  # over the same set


def test_nothing_in_common_is_said_and_what_there_is_is_shown(tmp_path, capsys):
    one = make_run(tmp_path / "one", models=("clip",), datasets=("digits",), attacks=("clean", "pgd"), n=24)
    two = make_run(tmp_path / "two", models=("ucat",), datasets=("letters",), attacks=("clean", "pgd"), n=24)
    runs = [str(one.path), str(two.path)]
    assert main(["report", *runs, "--layout", "by-eps"]) == 2
    said = capsys.readouterr()
    assert "layout 'by-eps' is empty: No data set is in the run for all shown models" in said.err and said.out == ""
    assert main(["report", *runs]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "(no cells)" not in shown and "Average: over the data sets that all shown models have: none." in shown
    results = gather(runs, resamples=20)
    assert "digits" in text_table(results) and "(no cells)" not in text_report(results, "all")  # what bench prints at its end
    assert chosen_tables(results)


def test_a_whole_run_needs_no_words(whole):
    averages = Averages(without(whole, set()))
    assert missing(whole, averages, MEMBERS) == "" and over(averages, {"pgd": [("pgd", "1/255")]}) == "averages over 3 data sets"


@pytest.mark.parametrize("layout", ["transfer", "coco"])
def test_a_layout_without_cells_is_no_success(whole, layout):
    with pytest.raises(UserError, match=f"layout '{layout}' is empty: Cells of"):
        chosen_tables(whole, layout)
    assert chosen_tables(whole, "all") and all(table.rows for table in chosen_tables(whole, "all"))
