"""The layout and figure `minimal-norm`: accuracy against radius from distances, against a plain loop."""

import numpy as np
import pytest
from cells import cell
from synthetic_run import records, with_correct

from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.report.layouts import build, why_empty
from robustcal.report.minimal_norm import accuracy_at, distances, median, minimal_norm_tables
from robustcal.report.minimal_norm_plot import minimal_norm_figure

pytestmark = pytest.mark.usefixtures("by_hand")  # correct stands in the records as the test wants it

RADII = {"0": 0.0, "1/255": 1 / 255, "2/255": 2 / 255, "8/255": 8 / 255}


def column(n=40, seed=0):
    """Wrong as they are (distance 0), broken at some distance, never broken."""
    random = np.random.default_rng(seed)
    norms = random.uniform(0, 8 / 255, n)
    norms[:4], norms[4] = 0, 1 / 255
    return {"id": np.array([f"s/{i}" for i in range(n)]), "correct": np.arange(n) >= 30, "linf": np.where(np.arange(n) < 30, norms, 0)}


def test_accuracy_is_the_share_beyond_each_radius():
    held = column()
    found = accuracy_at(held, "linf", RADII)
    for name, radius in RADII.items():
        broken = [not right and size <= radius + 1e-9 for right, size in zip(held["correct"], held["linf"])]
        assert found[name] == pytest.approx(1 - np.mean(broken))
    assert list(found.values()) == sorted(found.values(), reverse=True) and found["8/255"] == pytest.approx(10 / 40)


def test_the_median_is_over_what_is_right_without_attack():
    held = column()
    sizes = [size if not right else np.inf for right, size in zip(held["correct"], held["linf"]) if right or size > 0]
    assert median(held, "linf") == pytest.approx(np.median(sizes))
    assert median({**held, "correct": np.arange(40) >= 10}, "linf") is None  # most were not broken
    assert median({**held, "correct": np.zeros(40, bool), "linf": np.zeros(40)}, "linf") is None  # none was right
    assert (distances(held, "linf")[30:] == np.inf).all()


def made_up():
    held = column()
    return {**with_correct(records(40, 10, 0.5, 100, 0), held["correct"]), "linf": held["linf"], "l2": held["linf"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", {"command": "", "versions": {}, "device": "cpu", "seed": 0, "time": 0})
    for model in ("tiny-clip", "tiny-tecoa"):
        for attack, eps in (("fmn:norm=linf", "8/255"), ("fmn:norm=linf", "4/255"), ("ddn", "1/2"), ("pgd", "8/255")):
            rule = {"returns": "nearest-else-clean", "accuracy_only": True, "norm": "l2" if attack == "ddn" else "linf"}
            one = cell(attack, eps, model=model, n=40, **({} if attack == "pgd" else rule))
            made.add_cell(one)
            made.write_shard(one.id, 0, made_up())
    return made


def test_one_table_per_norm_at_its_largest_radius(run):
    results = evaluate([run])
    tables = {table.name: table for table in minimal_norm_tables(results)}
    assert set(tables) == {"minimal-norm-linf", "minimal-norm-l2"}
    table = tables["minimal-norm-linf"]
    assert [row.labels[2] for row in table.rows] == ["tiny-clip", "tiny-tecoa"] and "8/255" in table.caption
    expected = accuracy_at(column(), "linf", {"0": 0, "0.5/255": 0.5 / 255, "1/255": 1 / 255, "2/255": 2 / 255, "4/255": 4 / 255, "8/255": 8 / 255})
    assert [entry.value for entry in table.rows[0].entries[:-1]] == pytest.approx(list(expected.values()))
    assert all(entry.lo <= entry.value <= entry.hi for entry in table.rows[0].entries[:-1])
    assert table.rows[0].entries[-1].value == pytest.approx(255 * median(column(), "linf"))
    assert [t.name for t in build("minimal-norm", results)] == list(tables) and "fmn" in why_empty("minimal-norm")


def test_the_curve_ends_where_the_table_does(run):
    figure = minimal_norm_figure(evaluate([run]))
    by_norm = {ax.get_xlabel(): ax for ax in figure.axes}
    line = by_norm["radius x 255"].get_lines()[0]
    x, y = line.get_data()
    assert (x[0], x[-1]) == (0, 8) and y[0] == pytest.approx(36 / 40) and y[-1] == pytest.approx(10 / 40) and (np.diff(y) <= 0).all()
    assert len(by_norm["radius, Euclidean"].get_lines()) == 2
