"""Corruptions in a sweep and the layout of their means: against plain loops over the records."""

import json
from itertools import product

import numpy as np
import pytest
import synthetic_run

from robustcal.attacks.severities import EXTRA, MAIN
from robustcal.records.store import Run
from robustcal.report.corruptions import COUNTED, NOT_COUNTED, SEVERITIES, Corrupted, corruption_tables, mean_over
from robustcal.report.replicates import Replicates
from robustcal.report.report import gather, text_report
from robustcal.sweep.plan import Request, Sweep, make_plan
from robustcal.types import UserError

MODELS, SETS, NAMES, LEVELS = ("tiny-clip", "tiny-ucat"), ("digits", "letters"), ("fog", "snow", "spatter"), (1, 4)


def make(path, **how):
    """Invented cells of three corruptions, one of which is not counted, at two severities; pulled apart like an attack."""
    attacks = ("clean", *(f"corruption:{name}:severity={level}" for name, level in product(NAMES, LEVELS)))
    run = synthetic_run.make_run(path, **{"models": MODELS, "datasets": SETS, "attacks": attacks, "radii": ("4/255",), "n": 60} | how)
    for file in (run.path / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        if cell["kind"] != "clean":
            identity = cell["identity"] | {"eps": "0", "threat": cell["identity"]["threat"] | {"eps": 0.0, "norm": "none"}}
            file.write_text(json.dumps(cell | {"kind": "shift", "identity": identity}))
    return Run.open(run.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("corruptions") / "run")


@pytest.fixture(scope="module")
def tables(run):
    return corruption_tables(gather([run.path], resamples=200, details=False))


def accuracy(run, model, dataset, attack):
    (cell,) = [c for c in run.cells() if (c.model, c.dataset, c.attack) == (model, dataset, attack)]
    return np.mean(run.read(cell.id)["correct"])


def by_hand(run, model, dataset, names, baseline=MODELS[0]):
    """mCA, mCE and relative mCE of these corruptions, as the papers write them."""
    clean, clean_base = (1 - accuracy(run, m, dataset, "clean") for m in (model, baseline))
    right, errors, relative = [], [], []
    for name in names:
        own, base = ([1 - accuracy(run, m, dataset, f"corruption:{name}:severity={s}") for s in LEVELS] for m in (model, baseline))
        right += [1 - error for error in own]
        errors.append(sum(own) / sum(base))
        relative.append(sum(error - clean for error in own) / sum(error - clean_base for error in base))
    return np.mean(right), np.mean(errors), np.mean(relative)


COLUMNS = (("corrupted", "mCA"), ("corrupted", "mCE"), ("corrupted", "relative mCE"))


@pytest.mark.parametrize("dataset, model", product((*SETS, "Average"), MODELS))
def test_the_means_are_those_of_the_papers(run, tables, dataset, model):
    sets = SETS if dataset == "Average" else (dataset,)
    wanted = np.mean([by_hand(run, model, name, ("fog", "snow")) for name in sets], axis=0)
    row = tables[0].numbers()[dataset, model]
    for column, value in zip(COLUMNS, wanted, strict=True):
        entry = row[column]
        assert entry.value == pytest.approx(value, abs=1e-6) and entry.lo <= entry.value <= entry.hi
    assert row["clean", "Acc"].value == pytest.approx(np.mean([accuracy(run, model, name, "clean") for name in sets]))


def test_each_corruption_stands_by_itself(run, tables):
    assert {labels[0] for labels in tables[1].numbers()} == {"fog", "snow"}
    row = tables[1].numbers()["snow", MODELS[1]]
    wanted = np.mean([by_hand(run, MODELS[1], name, ("snow",)) for name in SETS], axis=0)
    assert [row["", title].value for title in ("Acc", "CE", "relative CE")] == pytest.approx(list(wanted), abs=1e-6)


def test_the_baseline_has_an_error_of_one_without_an_interval(run, tables):
    own = tables[0].numbers()["Average", MODELS[0]]["corrupted", "mCE"]
    assert (own.value, own.lo, own.hi) == pytest.approx((1, 1, 1))
    other = corruption_tables(gather([run.path], resamples=20, details=False, versus=MODELS[1]))[0]
    assert other.numbers()["Average", MODELS[1]]["corrupted", "mCE"].value == pytest.approx(1)
    assert f"divided by that of {MODELS[1]}" in other.caption


def test_a_baseline_that_a_corruption_does_no_harm_gives_no_relative_error():
    """Its rise would be divided by nothing, or less: where that can be, there is no interval; where it is, no number."""
    def numbers(accuracy, draws):
        return Replicates({"accuracy": accuracy, "ece": 0.1}, {"accuracy": np.array(draws), "ece": np.full(len(draws), 0.1)}, {})

    own = Corrupted(numbers(0.8, [0.8] * 4), {"fog": {1: numbers(0.5, [0.5] * 4)}})
    for accuracy, draws, known, limits in ((0.9, [0.9] * 4, False, False), (0.7, [0.7, 0.7, 0.7, 0.8], True, False), (0.7, [0.7] * 4, True, True)):
        base = Corrupted(numbers(0.8, [0.8] * 4), {"fog": {1: numbers(accuracy, draws)}})
        found = mean_over(own, base, ["fog"])
        assert ("relative_corruption_error" in found.values) == known and found.values["corruption_error"] == pytest.approx(0.5 / (1 - accuracy))
        if known:
            value, low, _ = found.interval("relative_corruption_error")
            assert value == pytest.approx(3) and np.isfinite(low) == limits


def test_a_part_of_the_corruptions_is_said_to_be_no_published_mean(tables, tmp_path):
    assert "fog and snow at severities 1 and 4 only: not the published means" in tables[0].caption
    assert {*NOT_COUNTED} == {*EXTRA} and len(MAIN) == COUNTED


def test_where_a_model_lacks_a_severity_no_model_has_it(run, tmp_path):
    more = make(tmp_path / "more", models=("tiny-fare",), attacks=("clean", "corruption:fog:severity=4"))
    rows = corruption_tables(gather([run.path, more.path], resamples=20, details=False))[0].numbers()
    where = [accuracy(run, MODELS[0], name, "corruption:fog:severity=4") for name in SETS]
    assert rows["Average", MODELS[0]]["corrupted", "mCA"].value == pytest.approx(np.mean(where))


def test_a_run_without_corruptions_says_what_fills_the_layout(tmp_path):
    plain = synthetic_run.make_run(tmp_path / "run", models=MODELS[:1], datasets=SETS[:1], n=8)
    with pytest.raises(UserError, match="--attacks corruption:all"):
        text_report([plain], layout="corruptions")


# -- one spec for all ----------------------------------------------------------------------------------------------------
def attacks(*texts):
    return make_plan(Request((Sweep.of("tiny-clip", texts, "digits", limit=4),))).distinct("attack")


def test_one_spec_stands_for_the_fifteen_at_all_severities():
    one_by_one = [f"corruption:{name}:severity={level}" for name, level in product(MAIN, range(1, SEVERITIES + 1))]
    assert attacks("corruption:all") == attacks(*one_by_one) == one_by_one
    assert attacks("corruption:extra:severity=2") == [f"corruption:{name}:severity=2" for name in EXTRA]
    assert len(attacks("clean", "corruption:all:severity=3", "corruption:fog")) == 1 + COUNTED


@pytest.mark.parametrize("text, said", [
    ("corruption:all:severity=6", "severities are 1 to 5"), ("corruption:al", "there is no corruption 'al'"),
    ("corruption:all:level=2", "has no parameter 'level'"),
])  # fmt: skip
def test_what_it_cannot_stand_for_is_one_line(text, said):
    with pytest.raises(UserError, match=said):
        attacks(text)
