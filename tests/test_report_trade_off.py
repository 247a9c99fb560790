"""Trade-off curves against naive geometry, and the spread over prompts against the cells it is of."""

import json

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.report.prompt_sets import prompt_groups, prompt_tables, without_prompts
from robustcal.report.report import text_report
from robustcal.report.trade_off import _facts, area, at_clean, equal_clean, families, trade_off_tables
from robustcal.report.trade_off_plot import trade_off_curves, trade_off_figure
from robustcal.types import UserError

MODELS = ("tiny-clip", "tiny-ucat", "interpolate:a=tiny-clip:b=tiny-ucat:t=0.25", "interpolate:a=tiny-clip:b=tiny-ucat:t=0.75", "tiny-tecoa")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "r", models=MODELS, attacks=("clean", "pgd"), radii=("1/255",))


def test_area_is_that_of_the_dominated_region():
    random = np.random.default_rng(0)
    clean, robust = random.random((2, 5, 3))
    grid = (np.arange(400) + 0.5) / 400
    x, y = np.meshgrid(grid, grid)
    for i in range(3):
        inside = np.any([(x <= c) & (y <= r) for c, r in zip(clean[:, i], robust[:, i], strict=True)], axis=0)
        assert area(clean, robust)[i] == pytest.approx(inside.mean(), abs=0.005)


def test_where_a_curve_crosses_a_clean_accuracy():
    clean, robust, ece = (np.array(values)[:, None] for values in ([0.8, 0.7, 0.5], [0.1, 0.3, 0.4], [0.6, 0.4, 0.2]))
    for level in (0.8, 0.75, 0.62, 0.5):
        found = at_clean((clean, robust, ece), level)
        wanted = [np.interp(-level, -clean[:, 0], values[:, 0]) for values in (robust, ece)]
        assert [value[0] for value in found] == pytest.approx(wanted)
    assert [v[0] for v in at_clean((clean, robust, ece), 0.9)] == [0.1, 0.6]  # beyond the curve: its nearest point
    back = tuple(np.array(v)[:, None] for v in ([0.8, 0.6, 0.8], [0.1, 0.2, 0.4], [0.5, 0.4, 0.3]))
    assert at_clean(back, 0.7)[0][0] == pytest.approx(0.3)  # of two crossings the more robust one


def test_the_common_clean_accuracy_is_one_that_all_curves_have():
    one, two, apart = (tuple(np.array(v)[:, None] for v in ([low, high], [0.1, 0.2], [0.1, 0.2])) for low, high in ((0.5, 0.8), (0.6, 0.7), (0.1, 0.2)))
    assert equal_clean([one, two]) == 0.6 and equal_clean([one, two, apart]) is None


def test_interpolations_are_a_family_with_both_ends(run):
    results = evaluate([run], resamples=20)
    (family,) = families(results)
    assert family.parameter == "t"
    assert dict(family.models) == {0.0: "tiny-clip", 0.25: MODELS[2], 0.75: MODELS[3], 1.0: "tiny-ucat"}
    curve, summary = trade_off_tables(results)
    assert [row.labels[3:] for row in curve.rows] == [("t=0", "tiny-clip"), ("t=0.25", curve.rows[1].labels[4]), ("t=0.75", curve.rows[2].labels[4]), ("t=1", "tiny-ucat")]
    clean, robust = (
        np.array([np.mean([results.get(m, d, *at).numbers.values["accuracy"] for d in ("digits", "letters")]) for m in family.models.values()])
        for at in (("clean", "0"), ("pgd", "1/255"))
    )
    (row,) = summary.rows
    assert row.entries[0].value == pytest.approx(area(clean[:, None], robust[:, None])[0])
    assert row.entries[0].lo < row.entries[0].value < row.entries[0].hi and row.entries[1].value == pytest.approx(clean.min())


def test_trainings_that_differ_in_one_number_are_a_family(tmp_path):
    run = make_run(tmp_path / "r", models=("tiny-clip", "tiny-ucat", "tiny-tecoa"), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=20)
    weights = {"tiny-clip": {"weight": 1.0, "seed": 0}, "tiny-ucat": {"weight": 4.0, "seed": 1}, "tiny-tecoa": {"weight": 4.0, "inner": "pgd"}}
    for file in (run.path / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        file.write_text(json.dumps(cell | {"training": {"method": "ucat", **weights[cell["identity"]["model"]]}}))
    (family,) = families(evaluate([Run.open(run.path)], resamples=5))
    assert family.parameter == "weight" and dict(family.models) == {1.0: "tiny-clip", 4.0: "tiny-ucat"}


def test_trainings_that_differ_in_one_strength_are_a_curve(tmp_path):
    """A parameter of the objective (with its default) or the radius; one that differs in anything else is none of it."""
    trained = {
        "tiny-ucat": ("ucat", "1/255", "a"), "tiny-tecoa": ("ucat:weight=1000.0", "1/255", "a"), "tiny-fare": ("ucat", "2/255", "a"),
        "tiny-clip": ("ucat:weight=10.0", "1/255", "b"), "tiny-pmg-aft": ("ucat:tau=scaled:weight=10.0", "1/255", "a"),
    }  # fmt: skip
    run = make_run(tmp_path / "r", models=tuple(trained), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=20)
    for file in (run.path / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        objective, radius, besides = trained[cell["identity"]["model"]]
        facts = {"method": "ucat", "seed": 0, "objective": objective, "radius": radius, "besides": besides, "settings": objective + radius}
        file.write_text(json.dumps(cell | {"training": facts}))
    found = {family.parameter: family for family in families(evaluate([Run.open(run.path)], resamples=5))}
    assert set(found) == {"weight", "training radius"} and {family.title for family in found.values()} == {"ucat"}
    assert dict(found["weight"].models) == {1000.0: "tiny-tecoa", 1e5: "tiny-ucat"}
    assert dict(found["training radius"].models) == {1.0: "tiny-ucat", 2.0: "tiny-fare"}
    curve, summary = trade_off_tables(evaluate([Run.open(run.path)], resamples=5))
    assert {row.labels[3] for row in curve.rows} == {"weight=1000", "weight=100000", "training radius=1/255", "training radius=2/255"}
    assert sorted(row.labels[2] for row in summary.rows) == ["ucat, training radius", "ucat, weight"]


def test_defaults_are_written_out_beside_a_scaled_tau_and_strangers_stop_nothing():
    known = {"method": "ucat", "besides": "a", "radius": "1/255"}
    default, given = (_facts({**known, "objective": text}) for text in ("ucat:tau=scaled", "ucat:tau=scaled:weight=10.0"))
    assert default | {"weight": 10.0} == given and default["tau"] == "scaled" and default["weight"] == 1e5
    for odd in ({"radius": "local-0123456789ab"}, {"objective": "my obj:"}):
        assert "training radius" not in _facts({**known, "objective": "ucat", **odd})


def test_the_figure_has_a_point_for_every_model(run):
    results = evaluate([run], resamples=20)
    ax = trade_off_curves(results, ("pgd", "1/255"))
    assert len(ax.containers[0].lines[0].get_xdata()) == 4 and {t.get_text() for t in ax.texts} == {"0", "0.25", "0.75", "1"}
    assert len(trade_off_figure(results, "pgd", "1/255").axes) == 2


def test_a_run_without_a_family_says_so(tmp_path):
    one = make_run(tmp_path / "r", models=("clip",), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=10)
    for layout in ("trade-off", "prompts"):
        with pytest.raises(UserError, match=f"layout '{layout}' is empty: "):
            text_report([one], layout)


# -- prompts -----------------------------------------------------------------------------------------------------------
def test_prompts_are_a_parameter_of_the_data_set():
    assert without_prompts("digits:split=test") == ("digits:split=test", "card")
    assert without_prompts("digits:prompts=long:split=test #2") == ("digits:split=test", "long")


def test_the_spread_over_prompts_is_that_of_its_cells(tmp_path):
    """Three prompt sets on the same samples, each with its own outcomes."""
    sets = ("digits", "digits:prompts=long", "digits:prompts=photo")
    run = make_run(tmp_path / "r", models=("ucat",), attacks=("clean", "pgd"), datasets=sets, radii=("1/255",))
    ids = [f"digits/{i}" for i in range(96)]
    for cell in run.cells():
        rows = {name: list(column) if name == "flags" else column for name, column in run.read(cell.id).items()} | {"id": ids}
        for path in (run.path / "records" / cell.id).glob("*.parquet"):
            path.unlink()
        run.write_shard(cell.id, 0, rows)
    results = evaluate([Run.open(run.path)], resamples=50)
    groups = prompt_groups(results)
    assert len(groups) == 2 and all(set(cells) == {"card", "long", "photo"} for cells in groups.values())
    (table,) = prompt_tables(results)
    for row, cells in zip(table.rows, groups.values(), strict=True):
        for start, name in ((0, "accuracy"), (4, "ece")):
            values = [cell.numbers.values[name] for cell in cells.values()]
            mean, least, largest, spread = (entry.value for entry in row.entries[start : start + 4])
            assert (mean, least, largest, spread) == pytest.approx((np.mean(values), min(values), max(values), max(values) - min(values)))
    assert table.rows[0].entries[3].lo < table.rows[0].entries[3].value < table.rows[0].entries[3].hi


def test_prompts_on_other_samples_are_not_compared(tmp_path):
    run = make_run(tmp_path / "r", models=("ucat",), attacks=("clean",), datasets=("digits", "digits:prompts=long"), n=24)
    assert prompt_groups(evaluate([run], resamples=5)) == {}  # their ids differ
