"""Bins, short captions, JSON and costs: what a report says of itself, and says the same in all its forms."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal import registry
from robustcal.cli import main
from robustcal.report import layouts, markup, tables
from robustcal.report.catalogue import with_bins
from robustcal.report.frame import cells_frame
from robustcal.report.machine import json_text
from robustcal.report.report import FULL_METRICS, chosen_tables, gather
from robustcal.report.words import BINNED
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("forms") / "run", models=("clip", "ucat"), attacks=("clean", "pgd"), datasets=("digits",), n=60)


def naive_ece(records, bins):
    """Sum over bins (low, high] of share times |accuracy - confidence|."""
    total, confidence, correct = 0.0, records["confidence"].astype(float), records["correct"]
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


# -- bins ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bins", [1, 7, 15, 40])
def test_bins_change_every_number_that_has_them_and_the_diagram(run, bins):
    results = gather([run.path], metrics=FULL_METRICS, resamples=20, bins=bins)
    usual = gather([run.path], metrics=FULL_METRICS, resamples=20)
    for cell, known in zip(results.cells, usual.cells, strict=True):
        records = run.read(cell.id)
        assert cell.numbers.values["ece"] == pytest.approx(naive_ece(records, bins), abs=1e-6)
        assert cell.details.bins.error() == pytest.approx(cell.numbers.values["ece"], abs=1e-6)
        assert len(cell.details.bins.counts) == bins
        same = {name for name in cell.numbers.values if cell.numbers.values[name] == known.numbers.values[name]}
        if cell.kind == "clean" and bins != 15:  # where gaps have both signs
            assert not same & {"ece", "adaptive_ece", "classwise_ece"}
        assert {"accuracy", "nll", "brier", "ks", "confidence"} <= same
    assert set(cells_frame(results)["bins"]) == {bins}


def test_captions_say_how_many_bins_where_a_column_has_them(run):
    results = gather([run.path], metrics=FULL_METRICS, resamples=20, bins=9)
    for name in ("main", "calibration", "ablation", "by-eps"):
        for table in layouts.build(name, results):
            binned = any(column.metric in BINNED for column in table.columns)
            assert ("over 9 bins" in table.caption) == binned and ("over 9 bins" in table.short) == binned
    assert "15 equal-width" not in " ".join(t.caption for t in chosen_tables(results, "all"))


def test_a_metric_keeps_the_bins_it_names_and_a_users_own_default(run):
    assert [with_bins(m, 20) for m in ("calibration", "calibration:bins=5", "accuracy", "adaptive:reading=dirichlet")] == [
        "calibration:bins=20", "calibration:bins=5", "accuracy", "adaptive:reading=dirichlet:bins=20",
    ]  # fmt: skip
    assert with_bins("calibration", None) == "calibration"

    @registry.register.metric
    def forms_own(records, *, bins: int = 10):
        """forms_own: its bins."""
        return {"forms_own": float(bins)}

    try:
        found = [gather([run.path], resamples=5, wanted=["forms-own"], bins=bins).cells[0].asked for bins in (None, 20)]
    finally:
        registry.metrics.plugins.pop("forms-own")
    assert [asked["forms-own"].values["forms_own"] for asked in found] == [10, 20]


def test_every_column_of_a_metric_with_parameters_names_them(run, tmp_path, capsys):
    words = ["--metrics", "calibration:bins=5", "selective", "--format", "csv", "--out", str(tmp_path), "--bins", "20"]
    assert main(["report", str(run.path), *words]) == 0
    capsys.readouterr()
    (row, *_) = csv.DictReader((tmp_path / "cells.csv").open())
    first = run.read(row["cell"])
    assert float(row["ece"]) == pytest.approx(naive_ece(first, 20), abs=1e-6)
    assert float(row["ece (calibration:bins=5)"]) == pytest.approx(naive_ece(first, 5), abs=1e-6)
    fives = [name for name in row if "calibration:bins=5" in name]
    assert len(fives) == 3 * 8 and not {"mce", "ece_debiased", "ece_l2", "gap"} & set(row) and "aurc" in row


@pytest.mark.parametrize("words, message", [
    (["--bins", "0"], "--bins '0' is not a positive integer"), (["--bins", "x"], "--bins 'x'"),
    (["--caption", "long"], "unknown caption 'long'; there are: full, short"),
    (["--compare", "ucat", "--bins", "20"], "published errors are over 15 bins"),
])  # fmt: skip
def test_a_mistake_is_one_line(run, words, message, capsys):
    assert main(["report", str(run.path), *words]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


# -- captions and marks ----------------------------------------------------------------------------------------------
def test_a_short_caption_says_what_is_shown_and_what_the_marks_are(run):
    results = gather([run.path], resamples=20)
    for full, short in zip(*(chosen_tables(results, "main,by-eps", caption=kind) for kind in ("full", "short")), strict=True):
        assert short.caption == full.short and len(short.caption) < len(full.caption) / 2 and full.rows == short.rows
        assert short.caption.endswith("Bold: best, †: significantly so; underlined: second best.") and "pixels" not in short.caption


def test_best_dagger_and_second_in_every_form():
    ranks = ("best", "best significant", "second", "")
    rows = tuple(tables.Row((rank or "none",), (tables.Entry(0.1 + i / 10, rank=rank),)) for i, rank in enumerate(ranks))
    table = tables.Table("t", "c", ("Model",), (tables.Column("Acc"),), rows)
    assert [line.split()[-1] for line in tables.text(table).splitlines()[-4:]] == ["10.00*", "20.00*†", "30.00_", "40.00"]
    assert [line.split("|")[2].strip() for line in markup.markdown(table).splitlines()[-4:]] == ["**10.00**", "**20.00**†", "<u>30.00</u>", "40.00"]
    tex = markup.latex(table)
    for piece in (r"\textbf{10.00} \\", r"\textbf{20.00}\textsuperscript{\dag} \\", r"\underline{30.00} \\", "none & 40.00 "):
        assert piece in tex


# -- JSON and costs --------------------------------------------------------------------------------------------------
def test_json_holds_what_cells_csv_and_the_tables_hold(run):
    results = gather([run.path], resamples=20)
    found = json.loads(json_text(results, chosen_tables(results, "main")))
    frame = cells_frame(results)
    assert [list(cell) for cell in found["cells"]] == [list(frame.columns)] * len(frame)
    for cell, (_, row) in zip(found["cells"], frame.iterrows(), strict=True):
        assert cell["accuracy"] == row["accuracy"] and cell["eps"] == row["eps"] and ";".join(cell["flags"]) == row["flags"]
        assert cell["eu"] is None if math.isnan(row["eu"]) else cell["eu"] == row["eu"]
    shown, table = layouts.build("main", results)[0], found["tables"][0]
    assert table["rows"][1]["entries"][0]["value"] == shown.rows[1].entries[0].value and table["caption"] == shown.caption
    assert found["labels"]["model"] == {"clip": "clip", "ucat": "ucat"} and found["bins"] == 15


def test_costs_are_the_sums_of_the_records(run):
    frame = cells_frame(gather([run.path], resamples=5)).set_index("cell")
    for cell in run.cells():
        records = run.read(cell.id, ("forwards", "backwards"))
        assert [frame.loc[cell.id, name] for name in records] == [int(np.sum(values)) for values in records.values()]


def test_bins_of_none_are_refused_from_python_too():
    from robustcal.report.report import check_request

    with pytest.raises(UserError, match="--bins 0 is none"):
        check_request(bins=0)
