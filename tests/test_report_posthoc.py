"""Post-hoc temperatures of a whole run: fitted where they say, judged on samples they have not seen."""

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.temperature import fit_temperature
from robustcal.report.posthoc import posthoc_frame
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "r"
    return make_run(path, models=("clip", "ucat"), attacks=("clean", "pgd"), radii=("1/255",))


@pytest.fixture(scope="module")
def frame(run):
    return posthoc_frame(run, resamples=50)


def only(frame, model, dataset, attack):
    found = frame[(frame.model == model) & (frame.dataset == dataset) & (frame.attack == attack)]
    return found.set_index("fitted_on")


def test_every_cell_has_its_temperatures(frame):
    assert len(frame) == 2 * 2 * (3 + 4)  # models x datasets x (clean: no "attacked"; pgd: all four)
    assert set(frame.fitted_on) == {"native", "clean", "attacked", "oracle"}
    assert (frame[frame.fitted_on == "native"].temperature == 1).all()
    assert frame[["ece", "ece_lo", "ece_hi", "nll"]].notna().all().all()


def test_temperatures_come_from_the_source_dataset(run, frame):
    cells = {(c["model"], c["dataset"], c["attack"]): c["id"] for c in run.cells()}
    row = only(frame, "clip", "letters", "pgd")
    for name, attack in (("clean", "clean"), ("attacked", "pgd")):
        assert row.temperature[name] == pytest.approx(fit_temperature(run.read(cells["clip", "digits", attack])))
    assert row.temperature["oracle"] == pytest.approx(fit_temperature(run.read(cells["clip", "letters", "pgd"])))


def test_on_its_own_source_a_temperature_is_judged_on_the_other_half(run, frame):
    assert set(frame[frame.dataset == "digits"].n) == {48} and set(frame[frame.dataset == "letters"].n) == {96}
    cell = next(c for c in run.cells() if (c["model"], c["dataset"], c["attack"]) == ("clip", "digits", "clean"))
    half = {name: np.asarray(column)[::2] for name, column in run.read(cell["id"]).items()}
    row = only(frame, "clip", "digits", "clean")
    assert row.temperature["clean"] == pytest.approx(fit_temperature(half))


def test_the_oracle_bounds_the_likelihood_and_accuracy_does_not_move(frame):
    for _, cell in frame.groupby(["model", "dataset", "attack", "eps"]):
        cell = cell.set_index("fitted_on")
        assert cell.nll["oracle"] <= cell.nll.min() + 1e-9
        assert cell.accuracy.nunique() == 1


def test_an_unknown_source_is_named(run):
    with pytest.raises(UserError, match="no single-label dataset 'cifar10'; it has: digits, letters"):
        posthoc_frame(run, source="cifar10")
