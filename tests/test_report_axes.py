"""Axes of a report: severity and steps are columns as the radius is, and no average mixes resolutions."""

import json

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.records.store import Run
from robustcal.report.averages import Averages
from robustcal.report.evaluate import evaluate
from robustcal.report.layouts import LAYOUTS, WHOLE, build
from robustcal.report.report import write_report


def changed(run, change):
    """A run whose cells are as `change` makes them."""
    for file in (run.path / "records").glob("*/cell.json"):
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return Run.open(run.path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two data sets at 32 pixels and one at 224."""
    run = make_run(tmp_path_factory.mktemp("run") / "r", models=("clip", "ucat"), attacks=("clean", "pgd"),
                   datasets=("digits", "letters", "stripes"), radii=("1/255",), n=48)  # fmt: skip
    return changed(run, lambda cell: cell | ({"resolution": 224} if cell["identity"]["dataset"] == "letters" else {}))


def test_no_average_mixes_resolutions(mixed):
    results = evaluate([mixed], resamples=20)
    averages = Averages(results)
    assert averages.get("clip", "pgd", "1/255") is None and averages.clean("clip") is None
    assert averages.get("clip", "pgd", "1/255", ["digits", "stripes"]) is not None
    for name in LAYOUTS:
        for table in build(name, results) if name not in WHOLE else ():
            side = table.name.rsplit("-", 1)[1]
            assert side in ("32", "224") and table.caption.startswith(f"{side} pixels.") and f"images of {side} pixels" in table.caption


def test_each_resolution_has_the_average_of_its_own(mixed):
    results = evaluate([mixed], resamples=20)
    by_name = {table.name: table for table in build("main", results)}
    assert set(by_name) == {"main-1-255-32", "main-1-255-224"}
    small, large = (by_name[name].numbers()["pgd", "ucat"] for name in ("main-1-255-32", "main-1-255-224"))
    values = {d: results.get("ucat", d, "pgd", "1/255").numbers.values["accuracy"] for d in ("digits", "letters", "stripes")}
    assert small["", "Average"].value == pytest.approx((values["digits"] + values["stripes"]) / 2)
    assert large["", "Average"].value == values["letters"] == large["", "letters"].value and ("", "letters") not in small


def test_a_page_and_figures_of_several_resolutions_are_made(mixed, tmp_path):
    from robustcal.report.report import gather

    paths = write_report(gather([mixed], resamples=20), ["html", "figures", "md"], tmp_path / "out")
    assert all(path.stat().st_size for path in paths)


def test_severity_is_a_column_and_not_the_radius_0(tmp_path):
    attacks = ("clean", "pgd", *(f"corruption:{name}:severity={s}" for name, s in (("fog", 1), ("fog", 3), ("snow", 3))))
    made = make_run(tmp_path / "r", models=("clip", "ucat"), attacks=attacks, datasets=("digits",), radii=("1/255",), n=40)

    def shifted(cell):
        if cell["identity"]["attack"].startswith("corruption"):
            cell["kind"] = "shift"
            cell["identity"] |= {"eps": "0", "threat": cell["identity"]["threat"] | {"eps": 0.0}}
        return cell

    results = evaluate([changed(made, shifted)], resamples=20)
    radius, severity = build("by-eps", results)
    assert [c.title for c in radius.columns][:2] == ["clean", "1/255"] and {row.labels[0] for row in radius.rows} == {"pgd"}
    assert severity.name == "by-severity" and [c.title for c in severity.columns] == ["clean", "1", "3"] * 2
    rows = severity.numbers()
    assert {labels[0] for labels in rows} == {"corruption:fog", "corruption:snow"}
    for value in ("1", "3"):
        cell = results.get("ucat", "digits", f"corruption:fog:severity={value}", "0")
        assert rows["corruption:fog", "ucat"]["Accuracy", value].value == cell.numbers.values["accuracy"]
    assert rows["corruption:snow", "clip"]["Accuracy", "1"].empty


def test_steps_are_a_column_where_cells_differ_in_them(tmp_path):
    attacks = ("clean", "pgd:steps=5", "pgd:steps=20", "cw:steps=5")
    run = make_run(tmp_path / "r", models=("clip",), attacks=attacks, datasets=("digits",), radii=("1/255", "2/255"), n=40)
    results = evaluate([run], resamples=20)
    table = next(table for table in build("by-eps", results) if table.name == "by-steps")
    assert [row.labels[0] for row in table.rows] == ["pgd at 1/255", "pgd at 2/255"]  # cw has one number of steps
    entries = table.numbers()["pgd at 2/255", "clip"]
    wanted = [results.get("clip", "digits", f"pgd:steps={s}", "2/255").numbers.values["ece"] for s in (5, 20)]
    assert np.allclose([entries["Calibration error (ECE)", s].value for s in ("5", "20")], wanted)
    assert "by-eps" in {table.name for table in build("by-eps", results)}
