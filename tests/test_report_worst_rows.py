"""The row `worst-calibration`: per-sample gaps by hand, its bounds, and where it stands."""

import json

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.calibration import expected_calibration_error
from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.report.report import chosen_tables
from robustcal.report.worst_rows import OF_CALIBRATION, worst_ids


def aimed(path, goal="calibration-gap", **given):
    """A run whose cells of cw aim at the confidence."""
    given = {"models": ("clip", "ucat"), "datasets": ("digits",), "radii": ("1/255",), "n": 80, **given}
    make_run(path, attacks=("clean", "pgd", "cw"), **given)
    for file in (path / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        if cell["identity"]["attack"] == "cw":
            cell["identity"]["threat"]["goal"] = goal
            file.write_text(json.dumps(cell))
    return Run.open(path)


def test_the_row_is_the_widest_gap_of_each_sample_and_bounds_every_choice(tmp_path):
    run = aimed(tmp_path / "r")
    results = evaluate([run], resamples=200)
    row = results.get("ucat", "digits", "worst-calibration", "1/255")
    cells = [run.read(c.id) for c in run.cells() if c.model == "ucat" and c.attack in ("pgd", "cw")]
    gap = np.array([np.abs(r["confidence"].astype(float) - r["correct"]) for r in cells])
    assert row.numbers.values["mean_gap"] == pytest.approx(gap.max(0).mean(), abs=1e-6)
    confidence, correct = (np.array([r[name] for r in cells], dtype=float) for name in ("confidence", "correct"))
    chosen, each = gap.argmax(0), np.arange(80)
    assert row.numbers.values["ece"] == pytest.approx(expected_calibration_error(confidence[chosen, each], correct[chosen, each]), abs=1e-6)
    random = np.random.default_rng(0)
    for _ in range(200):  # no choice of attacks has an ECE above the bound
        pick = random.integers(0, 2, 80)
        assert expected_calibration_error(confidence[pick, each], correct[pick, each]) <= row.numbers.values["mean_gap"] + 1e-9
    low, high = row.interval("mean_gap")[1:]
    assert low < row.numbers.values["mean_gap"] < high


def test_it_has_no_accuracy_and_so_no_place_in_tables_of_it(tmp_path):
    results = evaluate([aimed(tmp_path / "r")], resamples=20)
    row = results.get("clip", "digits", "worst-calibration", "1/255")
    assert set(row.numbers.values) <= set(OF_CALIBRATION) and {"ece", "mean_gap", "overconfidence"} <= set(row.numbers.values)
    (main,) = chosen_tables(results, "main")
    assert "worst-calibration" not in {r.labels[0] for r in main.rows}
    table = chosen_tables(results, "calibration")[0]
    found = next(r for r in table.rows if r.labels == ("worst-calibration", "clip"))
    titles = [column.title for column in table.columns]
    assert found.entries[titles.index("Acc")].empty and not found.entries[titles.index("ECE")].empty
    assert not found.entries[titles.index("Gap ≥ ECE")].empty and "bounds the binned ECE" in table.caption


def test_attacks_on_the_label_alone_have_no_such_row(tmp_path):
    plain = make_run(tmp_path / "r", models=("clip",), attacks=("clean", "pgd", "cw"), datasets=("digits",), radii=("1/255",), n=20)
    results = evaluate([plain], resamples=5)
    assert {cell.attack for cell in results.cells} == {"clean", "pgd", "cw", "worst"}
    alone = evaluate([aimed(tmp_path / "s", n=20)], resamples=5)
    assert {cell.attack for cell in alone.cells} == {"clean", "pgd", "cw", "worst-calibration"}  # one attack on the label is no worst case


def test_its_id_is_known_without_reading_records(tmp_path):
    from robustcal.report.merge import merge

    run = aimed(tmp_path / "r", n=20)
    rows = {cell.id for cell in evaluate([run], resamples=5).cells if cell.kind == "worst"}
    assert rows == set(worst_ids(merge([run])[0])) and len(rows) == 2
