"""The layout `conformal`: thresholds of one half, judged on the other, by hand."""

import json
import shutil

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.conformal import threshold
from robustcal.records.store import Run
from robustcal.report.again import half
from robustcal.report.evaluate import evaluate
from robustcal.report.layouts import build
from robustcal.report.report import text_report
from robustcal.report.sets import conformal_numbers, conformal_tables
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "r", models=("clip", "ucat"), attacks=("clean", "pgd"), radii=("1/255", "2/255"))


def test_coverage_is_that_of_the_other_half(run):
    results = evaluate([run], resamples=50)
    found, lacking, sizes = conformal_numbers(results, 50)
    assert not lacking and set(sizes) == {48} and len(found) == 2 * 2 * 3
    cells = {(c.dataset, c.attack, c.eps): c for c in run.cells() if c.model == "clip"}
    clean, attacked = (run.read(cells["digits", *at].id) for at in (("clean", "0"), ("pgd", "1/255")))

    def label_scores(records):
        return -np.log(np.asarray(records["label_probability"], np.float64))

    for records, cell, name in ((clean, cells["digits", "pgd", "1/255"], "threshold"), (attacked, cells["digits", "pgd", "1/255"], "control")):
        limit = threshold(label_scores(half(records, False)), 0.9)
        other = half(attacked, True)
        numbers = found[cell.id].numbers
        assert numbers.values[f"coverage_{name}"] == pytest.approx((label_scores(other) <= limit + 1e-6).mean())
        probabilities = np.exp(other["top_logits"] - np.log(np.exp(other["top_logits"]).sum(1, keepdims=True)))
        assert numbers.values[f"size_{name}"] == pytest.approx((-np.log(probabilities) <= limit + 1e-6).sum(1).mean())
        assert numbers.method(f"coverage_{name}") == "score"
    assert "coverage_control" not in found[cells["digits", "clean", "0"].id].numbers.values


def test_the_table_averages_over_data_sets(run):
    results = evaluate([run], resamples=20)
    average, every = conformal_tables(results)
    numbers, one = average.numbers(), every.numbers()
    for model in ("clip", "ucat"):
        sets = [one["pgd", "2/255", model, name]["threshold", "coverage"].value for name in ("digits", "letters")]
        assert numbers["pgd", "2/255", model]["threshold", "coverage"].value == pytest.approx(np.mean(sets))
    assert len(average.rows) == 6 and len(every.rows) == 12 and "A threshold from 48 samples" in average.caption
    lowest = one["clean", "0", "clip", "digits"]["threshold", "lowest class"]
    assert lowest.lo <= lowest.value <= lowest.hi <= 1


def test_two_resolutions_are_two_tables_and_no_average(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "r")
    for file in (tmp_path / "r" / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        if cell["identity"]["dataset"] == "letters":
            file.write_text(json.dumps(cell | {"resolution": 224}))
    tables = build("conformal", evaluate([Run.open(tmp_path / "r")], resamples=5))
    assert [table.name for table in tables] == ["conformal-32", "conformal-sets-32", "conformal-224", "conformal-sets-224"]
    assert all("one data set" in table.caption for table in tables[::2])


def test_the_layout_is_there_and_a_former_name_says_the_new_one(run):
    assert "APS" in text_report([run], "conformal")
    with pytest.raises(UserError, match="layout 'temperature' is called 'calibrators' now"):
        text_report([run], "temperature")


def test_without_clean_records_there_are_no_sets(tmp_path):
    only = make_run(tmp_path / "r", models=("clip",), attacks=("pgd",), radii=("1/255",), n=12)
    assert conformal_tables(evaluate([only], resamples=5)) == []
    with pytest.raises(UserError, match="layout 'conformal' is empty: "):
        text_report([only], "conformal")
