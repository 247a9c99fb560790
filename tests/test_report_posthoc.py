"""Post-hoc calibrators of a whole run: fitted where they say, judged on samples they have not seen."""

import json
import shutil

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.calibrators import CALIBRATORS
from robustcal.metrics.temperature import fit_temperature
from robustcal.records.store import Run
from robustcal.report.again import half
from robustcal.report.evaluate import evaluate
from robustcal.report.posthoc import calibrator_tables, posthoc_frame
from robustcal.report.report import text_report
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "r"
    return make_run(path, models=("clip", "ucat"), attacks=("clean", "pgd"), radii=("1/255",))


@pytest.fixture(scope="module")
def frame(run):
    return posthoc_frame(run, source="digits", resamples=50)


def only(frame, model, dataset, attack):
    found = frame[(frame.model == model) & (frame.dataset == dataset) & (frame.attack == attack)]
    found = found[found.calibrator.isin(["none", "temperature"])]
    return found.set_index("fitted_on")


def test_every_cell_has_its_calibrators(frame):
    # models x datasets x (native, oracle; four fitted to clean records, under pgd four to attacked ones too)
    assert len(frame) == 2 * 2 * ((2 + 4) + (2 + 8))
    assert set(frame.fitted_on) == {"native", "clean", "attacked", "oracle"}
    assert set(frame.calibrator) == {"none", *CALIBRATORS}
    assert (frame[frame.fitted_on == "native"].temperature == 1).all()
    assert frame[["ece", "ece_lo", "ece_hi"]].notna().all().all()
    assert (frame.nll.isna() == frame.calibrator.isin(["isotonic", "histogram"])).all()


def test_temperatures_come_from_the_source_dataset(run, frame):
    cells = {(c.model, c.dataset, c.attack): c.id for c in run.cells()}
    row = only(frame, "clip", "letters", "pgd")
    for name, attack in (("clean", "clean"), ("attacked", "pgd")):
        assert row.temperature[name] == pytest.approx(fit_temperature(run.read(cells["clip", "digits", attack])))
    assert row.temperature["oracle"] == pytest.approx(fit_temperature(run.read(cells["clip", "letters", "pgd"])))


def test_on_its_own_source_a_temperature_is_judged_on_the_other_half(run, frame):
    assert set(frame[frame.dataset == "digits"].n) == {48} and set(frame[frame.dataset == "letters"].n) == {96}
    cell = next(c for c in run.cells() if (c.model, c.dataset, c.attack) == ("clip", "digits", "clean"))
    first = half(run.read(cell.id), second=False)
    row = only(frame, "clip", "digits", "clean")
    assert row.temperature["clean"] == pytest.approx(fit_temperature(first))


def test_halves_are_apart_whole_and_of_all_classes(run):
    """A data set's order goes through the classes in turn: every other sample would be every other class."""
    records = {"id": np.array([f"set/{i}" for i in range(401)]), "label": np.arange(401) % 4}
    first, second = (half(records, part) for part in (False, True))
    assert sorted([*first["id"], *second["id"]]) == sorted(records["id"]) and len(first["id"]) == 201
    for part in (first, second):
        assert (np.bincount(part["label"], minlength=4) > 30).all()
    shuffled = {name: column[::-1] for name, column in records.items()}
    assert set(half(shuffled, False)["id"]) == set(first["id"])


def test_the_oracle_bounds_the_likelihood_and_accuracy_does_not_move(frame):
    scaled = frame[frame.calibrator.isin(["none", "temperature"])]
    for _, rows in scaled.groupby(["model", "dataset", "attack", "eps"]):
        cell = rows.set_index("fitted_on")
        assert cell.nll["oracle"] <= cell.nll.min() + 1e-9
        assert cell.accuracy.nunique() == 1


def test_one_sample_leaves_rows_empty(tmp_path):
    one = make_run(tmp_path / "one", models=("clip",), attacks=("clean", "pgd"), radii=("1/255",), n=1)
    found = posthoc_frame(one, source="digits", resamples=5)
    here = found[found.dataset == "digits"]  # nothing is left to judge on where the one sample was fitted to
    assert (here.n == 0).all() and here[["ece", "nll", "accuracy"]].isna().all().all()
    assert "oracle" not in set(here.fitted_on) and found[found.dataset == "letters"].ece.notna().all()
    assert "temperature" in text_report([one], "calibrators")


def test_vector_scaling_needs_the_classes_it_was_fitted_to(tmp_path):
    parts = [make_run(tmp_path / name, models=("ucat",), attacks=("clean",), datasets=(name,), n=40, classnames=names)
             for name, names in (("digits", ["a", "b", "c"]), ("letters", ["a", "b", "d"]))]  # fmt: skip
    known = [trained(part, tmp_path / f"{part.path.name}-known", ucat="digits") for part in parts]
    (table,) = calibrator_tables(evaluate(known, resamples=5))
    empty = {labels[3]: {t for (g, t), e in row.items() if e.empty and g == "fitted to clean records"} for labels, row in table.numbers().items()}
    assert empty == {"digits": set(), "letters": {"vector"}}


def test_a_calibrator_fitted_to_attacked_records_mends_what_it_was_fitted_to(run, frame):
    cell = frame[(frame.attack == "pgd") & (frame.dataset == "letters")].groupby(["calibrator", "fitted_on"]).ece.mean()
    for name in ("temperature", "isotonic", "histogram"):
        assert cell[name, "attacked"] < cell["none", "native"]


def test_an_unknown_source_is_named(run):
    with pytest.raises(UserError, match="no single-label dataset 'cifar10'; it has: digits, letters"):
        posthoc_frame(run, source="cifar10")


def trained(run, path, **sources):
    """A copy of a run whose cells say what their models were trained on."""
    shutil.copytree(run.path, path)
    for file in (path / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        if (model := cell["identity"]["model"]) in sources:
            file.write_text(json.dumps(cell | {"training": {"seed": 0, "source_data": sources[model]}}))
    return Run.open(path)


def test_the_source_is_what_the_cell_says_its_model_was_trained_on(run, tmp_path):
    """Not the first dataset, and not what the bundled card of the same name says."""
    known = trained(run, tmp_path / "r", clip="letters:split=train", ucat="digits")
    found = posthoc_frame(known, resamples=5)
    assert dict(zip(found.model, found.source)) == {"clip": "letters", "ucat": "digits"}
    assert only(found, "clip", "digits", "clean").n["native"] == 96 and only(found, "clip", "letters", "clean").n["native"] == 48
    (table,) = calibrator_tables(evaluate([known], resamples=5))
    assert "here letters (clip) and digits (ucat)" in table.caption and "Empty" not in table.caption


def test_an_unknown_source_leaves_the_columns_empty_and_the_caption_says_why(tmp_path):
    models = ("tiny-clip", "clip:ViT-B-32/openai", "ucat")
    made = make_run(tmp_path / "made", models=models, attacks=("clean", "pgd"), radii=("1/255",), n=24)
    (table,) = calibrator_tables(evaluate([trained(made, tmp_path / "r", ucat="digits:size=9")], resamples=5))
    for labels, row in table.numbers().items():
        empty = {group for (group, _), entry in row.items() if entry.empty}
        attacked = {"fitted to attacked records"}
        assert empty == (attacked if labels[0] == "clean" else set()) if labels[2] == "ucat" else empty == attacked | {"fitted to clean records"}
    assert "here digits;" in table.caption
    assert "tiny-clip, its source world-source is not in the run" in table.caption
    assert "clip:ViT-B-32/openai, its source is not known" in table.caption


def test_rows_are_told_apart_as_in_every_table(tmp_path):
    runs = [make_run(tmp_path / str(seed), models=("clip",), attacks=("clean", "pgd:steps=3", "pgd:steps=5"), datasets=("digits",),
                     radii=("1/255",), n=24, size=48, seed=seed) for seed in (0, 1)]  # fmt: skip
    (table,) = calibrator_tables(evaluate(runs, resamples=5))
    assert len({row.labels for row in table.rows}) == len(table.rows) == 6
    assert {"pgd:steps=3 #seed=0", "pgd:steps=5 #seed=1"} <= {row.labels[0] for row in table.rows}
    assert {row.labels[3] for row in table.rows} == {"digits #1", "digits #2"}


def test_another_copy_of_the_source_is_judged_on_samples_it_was_not_fitted_to(tmp_path):
    """Two resolutions of one dataset have the same samples: each has its own temperature, from its other half."""
    sets = ("digits:resolution=16", "digits:resolution=32")
    made = make_run(tmp_path / "made", models=("ucat",), attacks=("clean",), datasets=sets, n=24)
    found = posthoc_frame(trained(made, tmp_path / "r", ucat="digits:split=train"), resamples=5)
    assert (found.n == 12).all() and (found.source == found.dataset).all()
