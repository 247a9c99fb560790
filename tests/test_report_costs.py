"""The layout `costs`: passes from the records, seconds from beside them, and nothing of it in what is compared byte for byte."""

import csv
import json

import pytest
from synthetic_run import make_run

from robustcal.cell import SHARD
from robustcal.cli.parser import LAYOUTS as NAMED
from robustcal.records.costs import note, seconds_of
from robustcal.report.frame import csv_text
from robustcal.report.layouts import LAYOUTS, build
from robustcal.report.report import gather, write_report


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", models=("clip", "ucat"), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=SHARD + 12)


def test_every_layout_is_named_in_the_help():
    assert NAMED.partition(", all (")[0].split(", ") == [*LAYOUTS]


def test_a_cell_costs_what_its_shards_cost_and_all_cost_the_sum(run):
    cells = run.cells()
    for place, cell in enumerate(cells):
        note(run.path, cell.id, 0, 1.5 + place)
        note(run.path, cell.id, 1, 0.25)
    results = gather([run.path], resamples=20)
    table = build("costs", results)[0]
    assert len(table.rows) == len(cells) + 1
    order = {cell.id: place for place, cell in enumerate(cells)}
    for cell, row in zip(results.cells, table.rows):
        images, forwards, backwards, each, seconds, per_image = (entry.value for entry in row.entries)
        assert (images, seconds) == (SHARD + 12, 1.75 + order[cell.id]) and per_image == pytest.approx(seconds / images)
        assert (forwards, backwards) == tuple(cell.passes.values()) and each * images == forwards + backwards
    for i in (0, 1, 2, 4):
        assert table.rows[-1].entries[i].value == pytest.approx(sum(row.entries[i].value for row in table.rows[:-1]))


def test_a_cell_with_a_shard_that_was_not_measured_has_no_seconds(run):
    first, *others = run.cells()
    note(run.path, first.id, 0, 1.0)
    for cell in others:
        note(run.path, cell.id, 0, 1.0)
        note(run.path, cell.id, 1, 1.0)
    rows = build("costs", gather([run.path], resamples=20))[0].rows
    assert [row.entries[4].empty for row in rows] == [True, *[False] * len(others), True] and not rows[0].entries[1].empty


def test_a_torn_line_and_a_replaced_shard(tmp_path):
    note(tmp_path, "a", 0, 1.0)
    note(tmp_path, "a", 0, 3.0)
    note(tmp_path, "a", 1, 0.5)
    file = next((tmp_path / "costs").iterdir())
    (file.parent / "other-1.csv").write_text("b,0,2.5\nb,1,7")  # killed while it wrote 7.25
    assert seconds_of(tmp_path) == {"a": {0: 3.0, 1: 0.5}, "b": {0: 2.5}} and seconds_of(tmp_path / "none") == {}


def test_records_and_cells_csv_do_not_know_of_it(run, tmp_path):
    before = csv_text(gather([run.path], resamples=20)), {p: p.read_bytes() for p in (run.path / "records").rglob("*.parquet")}
    for cell in run.cells():
        note(run.path, cell.id, 0, 1.0)
        note(run.path, cell.id, 1, 1.0)
    results = gather([run.path], resamples=20)
    assert before == (csv_text(results), {p: p.read_bytes() for p in (run.path / "records").rglob("*.parquet")})
    write_report(results, ["csv", "json"], tmp_path / "out", layout="costs")
    rows = list(csv.DictReader((tmp_path / "out" / "table-costs.csv").open()))
    found = json.loads((tmp_path / "out" / "report.json").read_text())["tables"][0]
    assert len(rows) == len(found["rows"]) == 5 and [c["metric"] for c in found["columns"]][4] == "seconds"


def test_a_sweep_measures_each_of_its_shards(tmp_path):
    from robustcal import bench
    from robustcal.records.store import Run

    bench(["tiny-clip"], ["clean"], ["digits"], limit=6, out=tmp_path / "run", device="cpu", workers=1, progress=False)
    known, cells = seconds_of(tmp_path / "run"), Run.open(tmp_path / "run").cells()
    assert known.keys() == {cell.id for cell in cells} and all(shards[0] > 0 for shards in known.values())
