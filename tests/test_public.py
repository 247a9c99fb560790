"""What Python users see: the public names, their documentation, a run as an object, metrics in a loop of one's own."""

import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from synthetic_run import make_run

import robustcal
from robustcal import registry
from robustcal.finished import PLOTS, WHOLE
from robustcal.metrics.running import Running
from robustcal.types import UserError

VERBS = ("bench", "report", "attack", "train", "load_model", "frame", "Bench")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("public") / "run"
    make_run(path, models=("clip", "ucat"), radii=("1/255", "4/255"), n=40)
    return robustcal.Bench(path)


def test_dir_and_help_show_the_public_names():
    assert set(VERBS) | {"register", "UserError"} == set(robustcal.__all__)
    assert set(robustcal.__all__) <= set(dir(robustcal))
    importlib.import_module("robustcal.train.train")  # sets robustcal.train, as every import of a package's part does
    assert all(callable(getattr(robustcal, name)) for name in VERBS)
    assert all(hasattr(robustcal, name) for name in dir(robustcal))
    text = pydoc.plain(pydoc.render_doc(robustcal))
    missing = [name for name in robustcal.__all__ if not re.search(rf"\b{name}\b", text)]
    assert not missing
    assert "Sweep models x attacks x datasets" in text, "help of the verbs themselves"


@pytest.mark.parametrize("name", ["report", "train"])
def test_help_of_a_verb_that_is_a_package_says_how_it_is_called(name):
    text = pydoc.plain(pydoc.render_doc(getattr(robustcal, name)))
    for parameter in inspect.signature(getattr(robustcal, name)).parameters:
        assert re.search(rf"^ +(\w+, )*{parameter}\b.*:", text, re.MULTILINE), parameter


def test_dir_costs_no_import_of_torch():
    code = "import sys, robustcal; dir(robustcal); sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", [*VERBS, "Bench.plot"])
def test_every_parameter_is_documented(name):
    thing = robustcal
    for part in name.split("."):
        thing = getattr(thing, part)
    called = robustcal.train._verb() if name == "train" else thing.__call__ if inspect.ismodule(thing) else thing
    said = re.split(r"\n\s*(?:Raises|Returns):", inspect.getdoc(called).partition("Args:")[2])[0]
    entries = {word for line in re.findall(r"^    (\w[\w, ]*):", said, re.MULTILINE) for word in line.split(", ")}
    assert entries == set(inspect.signature(called).parameters) - {"self"}
    assert len(entries) == len(inspect.signature(thing).parameters) - ("Bench." in name), "help(...) shows them"


def test_the_package_says_that_it_is_typed():
    assert files("robustcal").joinpath("py.typed").is_file()


def test_report_is_a_verb_and_a_package(run, tmp_path):
    from robustcal.report import stats

    assert robustcal.report.stats is stats
    made = robustcal.report(run.path, formats=["text", "csv"], layout="main", out=tmp_path)
    assert "clip" in str(made) and made.paths and all(path.is_file() for path in made.paths)
    assert run.report(layout="main", width=100).text == robustcal.report(run.path, layout="main", width=100).text
    with pytest.raises(UserError, match="path of a run"):
        robustcal.report()


def test_a_run_shows_itself(run):
    assert re.fullmatch(r"<Bench '.*run': \d+ cells of 2 models, \d+ datasets, \d+ attacks>", repr(run))
    shown = run._repr_html_()
    assert shown.count("<tr") == len(run.cells) + 1 and "accuracy_lo" in shown
    failed = robustcal.Bench(run.path, failures=["one"])
    assert "1 failed" in repr(failed)


@pytest.mark.parametrize("kind", ["accuracy-ece", "reliability", "radius", "risk-coverage", "confidence", "entropy", "premise"])
def test_every_plot_is_drawn(run, kind):
    figure = run.plot(kind)
    assert any(ax.has_data() for ax in figure.axes)


@pytest.mark.parametrize("kind", ["trade-off", "minimal-norm"])
def test_a_plot_of_which_a_run_has_nothing_says_so(run, kind):
    with pytest.raises(UserError, match=f"plot '{kind}' is empty"):
        run.plot(kind)


def test_every_figure_that_shows_a_run_has_its_kind_of_plot():
    """Those of `report` that take results; the figure of one cell, and of one course, are parts of others."""
    made = {name for module in ("plots", "course_plot", "trade_off_plot", "minimal_norm_plot")
            for name, thing in vars(importlib.import_module(f"robustcal.report.{module}")).items() if name.endswith("_figure")
            and "results" in inspect.signature(thing).parameters}  # fmt: skip
    assert made == {function for _, function, _ in PLOTS.values()} | {"cell_figure", "course_figure"}


def test_a_plot_shows_what_is_asked_for(run):
    titles = [ax.get_title() for ax in run.plot("accuracy-ece", attack="pgd", eps="1/255").axes]
    assert any("pgd" in title and "1/255" in title for title in titles)
    for wrong in ({"kind": "pie"}, {"attack": "pdg"}, {"eps": "9/255"}):
        with pytest.raises(UserError, match="there are"):
            run.plot(**wrong)


def logits_and_labels(n=300, classes=7, seed=0):
    draw = np.random.default_rng(seed)
    logits = 4 * draw.standard_normal((n, classes))
    labels = np.where(draw.random(n) < 0.6, logits.argmax(1), draw.integers(0, classes, n))
    logits[:3] = [[900.0] + [0.0] * (classes - 1)] * 3  # a probability that underflows, and ties of confidence 1
    labels[:3] = [0, 1, 2]
    return logits, labels


def test_running_metrics_are_those_of_the_records():
    """Batches of any size, tensors or arrays: the values of the metrics on the records that a sweep would keep."""
    logits, labels = logits_and_labels()
    tops = np.argsort(-logits, axis=1)
    p = torch.from_numpy(logits).softmax(1).numpy()
    rows = np.arange(len(labels))
    records = {
        "label": labels, "prediction": tops[:, 0], "correct": tops[:, 0] == labels, "confidence": p.max(1).astype(np.float32),
        "dirichlet_confidence": np.full(len(labels), np.nan), "label_probability": p[rows, labels].astype(np.float32),
        "brier": ((p - np.eye(p.shape[1])[labels]) ** 2).sum(1).astype(np.float32),
        "top_logits": np.take_along_axis(logits, tops, 1), "top_classes": tops, "rest_logit": np.full(len(labels), -np.inf),
    }  # fmt: skip
    specs = ("calibration", "calibration:bins=10", "accuracy", "scores", "adaptive", "kolmogorov")
    for spec in specs:
        running = Running(spec)
        for at in range(0, len(labels), 64):
            chunk = slice(at, at + 64)
            running.update(torch.from_numpy(logits[chunk]) if at % 128 else logits[chunk], labels[chunk])
        plugin, arguments = registry.metrics.arguments(registry.metrics.spec(spec))
        assert running.compute() == pytest.approx(dict(plugin.make(records, **arguments)), rel=1e-6, abs=1e-9), spec
        assert len(running) == len(labels)


def test_running_calibration_is_that_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.classification")
    logits, labels = logits_and_labels(seed=1)
    running = Running("calibration:bins=15")
    theirs = {norm: classification.MulticlassCalibrationError(7, n_bins=15, norm=norm) for norm in ("l1", "max")}
    for part in np.array_split(np.arange(len(labels)), 5):
        running.update(logits[part], labels[part])
        for metric in theirs.values():
            metric.update(torch.from_numpy(logits[part]).softmax(1), torch.from_numpy(labels[part]))
    found = running.compute()
    assert found["ece"] == pytest.approx(float(theirs["l1"].compute()), abs=1e-6)
    assert found["mce"] == pytest.approx(float(theirs["max"].compute()), abs=1e-6)
    running.reset()
    assert running.compute() == {} and len(running) == 0


def test_running_metrics_refuse_what_they_cannot_measure():
    running = Running()
    for logits, labels in (
        ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [0.0]), ([1.0, 2.0], [0, 1]), ([[1.0, np.nan]], [0]), ([[1.0, 2.0]], [-1])
    ):  # fmt: skip
        with pytest.raises(UserError, match="update"):
            running.update(logits, labels)
    with pytest.raises(UserError, match="needs"):
        Running("uncertainty")
    half = torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    running.update(half, torch.tensor([0]))
    assert running.compute()["accuracy"] == 1


@pytest.mark.parametrize(("kind", "panels"), [("accuracy-ece", 1), ("radius", 2), ("risk-coverage", 2), ("premise", 2)])
def test_a_plot_goes_onto_axes_of_ones_own(run, kind, panels):
    figure = Figure()
    axes = figure.subplots(1, panels)
    assert run.plot(kind, ax=axes) is figure and all(ax.has_data() for ax in np.ravel(axes))
    with pytest.raises(UserError, match=f"has {panels} panels"):
        run.plot(kind, ax=Figure().subplots(1, 3))


@pytest.mark.parametrize("kind", WHOLE)
def test_plots_of_many_panels_say_that_they_make_their_own_figure(run, kind):
    with pytest.raises(UserError, match="leave ax out"):
        run.plot(kind, ax=Figure().subplots())
