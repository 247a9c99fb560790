"""`robustcal report` on the command line: what cannot be made is refused at once, and metrics that were asked for."""

from __future__ import annotations

import csv

import pytest
from synthetic_run import make_run

from robustcal import registry
from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.report import evaluate as evaluating
from robustcal.report import report as reporting
from robustcal.types import UserError

PLUGIN = '''"""Two numbers of a user's own."""
from robustcal import register

@register.metric(direction={"request_error": "lower"}, unit={"request_error": "fraction"}, columns=("correct", "confidence"))
def request_error(records, *, above: float = 0.5):
    """request_error: share of samples that are wrong at a confidence above `above`."""
    wrong = [not k and c > above for k, c in zip(records["correct"], records["confidence"])]
    return {"request_error": sum(wrong) / len(wrong)}
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("request") / "run", models=("clip", "ucat"), datasets=("digits",), n=40)


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "request_error.py"
    path.write_text(PLUGIN)
    yield path
    registry.metrics.plugins.pop("request-error", None)


REFUSED = {
    "layout": (["--layout", "nope"], "unknown layout 'nope'"),
    "one of two layouts": (["--layout", "main,nope", "--format", "md"], "unknown layout 'nope'"),
    "format": (["--format", "docx"], "unknown format 'docx'"),
    "second format": (["--format", "text", "md,docx"], "unknown format 'docx'"),
    "comparison": (["--compare", "blog"], "unknown comparison 'blog'"),
    "comparison of a layout": (["--compare", "ucat", "--layout", "transfer"], "no published table"),
    "cell": (["--explain", "zzz"], "no cell of the run starts with 'zzz'"),
    "empty cell": (["--explain", ""], "no cell"),
    "image cell": (["--images", "zzz"], "no cell of the run starts with 'zzz'"),
    "number of images": (["--images", "zzz", "--top", "0"], "--top '0'"),
    "metric": (["--metrics", "acuracy"], "did you mean accuracy"),
    "metric's parameter": (["--metrics", "calibration:bin=3"], "did you mean 'bins'"),
    "layout without its metrics": (["--layout", "metrics"], "--metrics"),
    "out": (["--format", "md", "--out", "FILE/below"], "is a file"),
    "plugin": (["--plugin", "absent.py"], "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_before_anything_is_read(case, run, tmp_path, monkeypatch, capsys):
    def computed(*_, **__):
        raise AssertionError("records were read")

    monkeypatch.setattr(Run, "read", computed)
    monkeypatch.setattr(evaluating, "_group", computed)
    (tmp_path / "FILE").write_text("")
    words, message = REFUSED[case]
    assert main(["report", str(run.path), *(str(tmp_path / w) if w.startswith("FILE") else w for w in words)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and said.err.count("\n") == 1


def test_a_correct_request_still_reads(run, monkeypatch, capsys):
    """The counterpart: what the tests above forbid does happen when the request is right."""
    seen = []
    whole = evaluating._group
    monkeypatch.setattr(evaluating, "_group", lambda *a: seen.append(1) or whole(*a))
    assert main(["report", str(run.path)]) == 0 and seen


def test_text_and_files_are_computed_once(run, tmp_path, monkeypatch, capsys):
    calls, whole = [], reporting.evaluate
    monkeypatch.setattr(reporting, "evaluate", lambda *a, **k: calls.append(1) or whole(*a, **k))
    assert main(["report", str(run.path), "--format", "text,md", "--out", str(tmp_path)]) == 0
    assert len(calls) == 1 and "Accuracy" in capsys.readouterr().out and (tmp_path / "table.md").is_file()


def test_a_metric_of_ones_own_in_the_table_and_in_cells_csv(run, plugin, tmp_path, capsys):
    words = ["--plugin", str(plugin), "--metrics", "request-error:above=0.4", "--format", "text", "csv", "--out", str(tmp_path)]
    assert main(["report", str(run.path), *words]) == 0
    shown = capsys.readouterr().out
    assert "Asked for: request-error:above=0.4" in shown and "request_error (request-error:above=0.4) ↓" in shown
    rows = {row["cell"]: row for row in csv.DictReader((tmp_path / "cells.csv").open())}
    for cell in run.cells():
        records = run.read(cell.id)
        truth = (~records["correct"] & (records["confidence"] > 0.4)).mean()
        row = rows[cell.id]
        assert float(row["request_error (request-error:above=0.4)"]) == pytest.approx(truth)
        assert float(row["request_error (request-error:above=0.4)_lo"]) <= truth <= float(row["request_error (request-error:above=0.4)_hi"])
        assert f"{100 * truth:.2f} [" in shown


def test_a_known_metric_with_other_parameters_does_not_replace_the_usual_one(run, tmp_path, capsys):
    words = ["--metrics", "calibration:bins=5", "--format", "csv", "--out", str(tmp_path)]
    assert main(["report", str(run.path), *words]) == 0
    row = next(csv.DictReader((tmp_path / "cells.csv").open()))
    assert float(row["ece"]) != float(row["ece (calibration:bins=5)"])
    assert (tmp_path / "table-metrics.csv").is_file()
    capsys.readouterr()


def test_explain_shows_it_too(run, plugin, capsys):
    cell = run.cells()[0].id
    assert main(["report", str(run.path), "--explain", cell, "--plugin", str(plugin), "--metrics", "request-error"]) == 0
    assert "request_error (request-error)" in capsys.readouterr().out


def test_text_alone_needs_no_place_to_write_to(run, tmp_path):
    (tmp_path / "file").write_text("")
    reporting.check_request(["text"], out=tmp_path / "file" / "report")
    for formats in (["text", "md"], []):  # no format: images
        with pytest.raises(UserError, match="is a file; choose another --out"):
            reporting.check_request(formats, out=tmp_path / "file" / "report")
