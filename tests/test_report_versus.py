"""One model against the others: differences, corrected p-values and ratios, against closed forms and naive counts."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.stats import binomtest
from synthetic_run import make_run

from robustcal.cli import main
from robustcal.report import layouts
from robustcal.report.report import chosen_tables, gather
from robustcal.report.stats import FEWEST, Interval, Replicates
from robustcal.report.versus import change_text, contrasts, p_text, ratio, sentences
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("versus") / "run", attacks=("clean", "pgd"), radii=("1/255",), n=80)


@pytest.fixture(scope="module")
def results(run):
    return gather([run.path], resamples=400, versus="clip", wanted=["calibration:bins=5"])


def correct(run, model, dataset, attack):
    (cell,) = [c for c in run.cells() if (c.model, c.dataset, c.attack) == (model, dataset, attack)]
    return run.read(cell.id)["correct"]


def naive_holm(ps):
    """Step by step: the k-th smallest of m times m - k + 1, never smaller than the one before."""
    order, found, last = sorted(range(len(ps)), key=ps.__getitem__), [0.0] * len(ps), 0.0
    for k, at in enumerate(order):
        last = max(last, min(1.0, (len(ps) - k) * ps[at]))
        found[at] = last
    return found


# -- differences -----------------------------------------------------------------------------------------------------
def test_accuracy_is_mcnemar_corrected_over_models_and_sets(run, results):
    found = [c for c in contrasts(results, "clip") if c.attack == "pgd" and c.dataset]
    exact = []
    for contrast in found:
        one, other = (correct(run, model, contrast.dataset, "pgd") for model in ("clip", contrast.model))
        only, lost = int((other & ~one).sum()), int((one & ~other).sum())
        exact.append(binomtest(lost, only + lost).pvalue if only + lost else 1.0)
        assert contrast.differences["accuracy"].value == pytest.approx(other.mean() - one.mean())
        assert contrast.differences["accuracy"].p == pytest.approx(exact[-1])
    assert [(c.model, c.dataset) for c in found] == [(m, d) for d in ("digits", "letters") for m in ("tecoa", "ucat")]
    assert [c.adjusted["accuracy"] for c in found] == pytest.approx(naive_holm(exact))


def test_the_average_is_that_of_the_sets_and_has_a_family_of_its_own(results):
    found = [c for c in contrasts(results, "clip") if c.attack == "pgd" and c.model == "ucat"]
    each, (mean,) = [c for c in found if c.dataset], [c for c in found if not c.dataset]
    for name in ("accuracy", "ece", "mce (calibration:bins=5)"):
        assert mean.differences[name].value == pytest.approx(np.mean([c.differences[name].value for c in each]))
    others = [c for c in contrasts(results, "clip") if c.attack == "pgd" and not c.dataset]
    assert [c.adjusted["ece"] for c in others] == pytest.approx(naive_holm([c.differences["ece"].p for c in others]))


def test_signs_turn_with_the_reference(results):
    forth = {(c.attack, c.dataset): c for c in contrasts(results, "clip") if c.model == "ucat"}
    back = {(c.attack, c.dataset): c for c in contrasts(results, "ucat") if c.model == "clip"}
    assert set(forth) == set(back) and forth
    for key, one in forth.items():
        other = back[key]
        assert one.differences["ece"].value == -other.differences["ece"].value
        assert one.differences["ece"].p == pytest.approx(other.differences["ece"].p)
        assert one.ratios["ece"].value == pytest.approx(1 / other.ratios["ece"].value)


def test_no_claim_below_the_stated_number_of_samples(tmp_path):
    few = gather([make_run(tmp_path / "few", datasets=("digits",), n=FEWEST - 1).path], resamples=50, versus="clip")
    found = contrasts(few, "clip")
    assert all(np.isnan(c.adjusted["ece"]) and c.adjusted["accuracy"] == c.adjusted["accuracy"] for c in found)
    table = next(t for t in layouts.build("versus", few) if t.name == "versus-1-255")
    assert f"fewer than {FEWEST} samples" in table.caption
    assert all(entry.empty for row in table.rows for entry in (row.entries[3],))
    assert all(f"no test below {FEWEST} samples" in line for line in table.remarks)


# -- ratios ----------------------------------------------------------------------------------------------------------
def drawn(draws, value=None):
    draws = np.asarray(draws, float)
    return Replicates({"ece": float(draws.mean()) if value is None else value}, {"ece": draws}, {})


def test_a_ratio_of_paired_draws_is_exact_where_they_are_proportional():
    draws = np.random.default_rng(0).uniform(0.1, 0.4, 500)
    assert ratio(drawn(draws), drawn(0.7 * draws), "ece") == pytest.approx((0.7, 0.7, 0.7))


def test_limits_of_a_ratio_are_those_of_a_quotient_of_known_distribution():
    random = np.random.default_rng(1)
    below, above = np.exp(random.normal(0, 0.1, 200_000)), np.exp(random.normal(-0.3, 0.1, 200_000))
    spread = 1.959964 * np.hypot(0.1, 0.1)  # the logarithm of the quotient is normal
    found = ratio(drawn(below), drawn(above), "ece")
    assert found[1:] == pytest.approx((np.exp(-0.3 - spread), np.exp(-0.3 + spread)), rel=0.01)


def test_a_reference_that_may_have_no_error_bounds_nothing():
    below = np.r_[np.zeros(30), np.full(470, 0.1)]  # 6 % of the draws are 0, more than a tail
    found = ratio(drawn(below, 0.1), drawn(np.full(500, 0.2)), "ece")
    assert found.value == pytest.approx(2.0) and np.isnan(found.lo) and np.isnan(found.hi)
    few = np.r_[np.zeros(5), np.full(495, 0.1)]  # 1 %: less than a tail
    assert ratio(drawn(few, 0.1), drawn(np.full(500, 0.2)), "ece") == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize("found, text", [
    ((0.71, 0.66, 0.76), "29 % lower [24, 34]"), ((1.5, 1.2, 2.0), "50 % higher [20, 100]"), ((0.9, 0.7, 1.05), "10 % lower [-5, 30]"),
    ((1.2, float("nan"), float("nan")), "20 % higher"),
])  # fmt: skip
def test_a_ratio_in_words(found, text):
    assert change_text(Interval(*found)) == text


def test_p_in_words():
    assert p_text(0.0123) == "= 0.012" and p_text(0.0009) == "< 0.001"


# -- what is shown ---------------------------------------------------------------------------------------------------
def test_sentences_hold_the_numbers_of_the_table(results):
    found = [c for c in contrasts(results, "clip") if not c.dataset and c.attack == "pgd" and c.model == "ucat"]
    (line,) = sentences(results, found)
    assert line.startswith("ucat against clip, under pgd at 1/255, on average: Acc +") and "points" in line
    assert change_text(found[0].ratios["ece"]) in line and "% lower [" in line


def test_what_only_accuracy_is_valid_for_gets_no_sentence_about_calibration(results):
    (one,) = [c for c in contrasts(results, "clip") if not c.dataset and c.attack == "pgd" and c.model == "ucat"]
    flagged = type(one)(**{**vars(one), "flags": ("accuracy-only",)})
    (line,) = sentences(results, [flagged])
    assert "ECE" not in line and "Acc" in line


def test_layout_files_and_command_line(run, tmp_path, capsys):
    words = ["report", str(run.path), "--versus", "clip", "--metrics", "scores", "--format", "text", "md", "tex", "csv", "json"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Every model less clip, at radius 1/255" in shown and "ucat against clip" in shown and "clip   clip" not in shown
    rows = list(csv.DictReader((tmp_path / "table-versus-1-255.csv").open()))
    assert [row["Data set"] for row in rows] == ["digits", "letters", "Average"] * 2
    assert {"Acc difference", "Acc difference lo", "Acc p", "ECE change", "ECE change lo", "NLL difference"} <= set(rows[0])
    assert all(float(row["ECE change lo"]) <= float(row["ECE change hi"]) for row in rows)
    table = next(t for t in json.loads((tmp_path / "report.json").read_text())["tables"] if t["name"] == "versus-1-255")
    assert table["rows"][0]["labels"] == {"Attack": "pgd", "Model": "tecoa", "Data set": "digits"}
    assert "$<0.0001$" in (tmp_path / "table.tex").read_text()
    assert "&lt;0.0001" in (tmp_path / "table.md").read_text()


def test_the_reference_is_named_by_label_or_spec(run):
    results = gather([run.path], resamples=5, rename=["clip=Base line"], versus="Base line")
    assert results.versus == "clip" == results.model("clip")
    with pytest.raises(UserError, match="no model of the run is called 'x'; there are: 'Base line', 'tecoa', 'ucat'"):
        gather([run.path], resamples=5, rename=["clip=Base line"], versus="x")


def test_without_a_reference_the_layout_is_refused_or_left_out(run, capsys):
    assert main(["report", str(run.path), "--layout", "versus"]) == 2 and "--versus MODEL" in capsys.readouterr().err
    assert not [t for t in chosen_tables(gather([run.path], resamples=5)) if t.name.startswith("versus")]
