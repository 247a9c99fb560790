"""Suites: every bundled one names things that exist, and each of its entries is obeyed."""

import pytest

from robustcal import registry
from robustcal.api import plan_request
from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.registry.suites import REPORT, SUITES, job_of, read_suite, sweeps_of
from robustcal.sweep.outline import Outline
from robustcal.sweep.plan import make_plan, model_identity
from robustcal.sweep.preflight import try_attacks
from robustcal.types import UserError

NAMES = sorted(path.stem for path in SUITES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_suite_names_attacks_datasets_and_models_that_exist(name):
    for sweep in sweeps_of(read_suite(name), {}):
        for family in ("attacks", "datasets", "models"):
            for spec in sweep[family]:
                getattr(registry, family).arguments(getattr(registry, family).spec(registry.split_label(spec)[1]))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("tiny")])
def test_a_suite_of_bundled_models_needs_no_other_weights(name):
    """What stands inside a spec counts too: a temperature of a model that has no weights here is found only when it is opened."""
    for sweep in sweeps_of(read_suite(name), {}):
        for spec in sweep["models"]:
            assert model_identity(registry.models.spec(registry.split_label(spec)[1]))


def write(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text('models = ["tiny-clip"]\nattacks = ["clean", "fgsm"]\ndatasets = ["digits"]\nlimit = 8\n' + text)
    return path


@pytest.mark.parametrize("given, used", [("auto", "fp16"), ("fp32", "fp32")])
def test_the_precision_of_a_suite_holds_unless_another_is_given(tmp_path, given, used):
    path = write(tmp_path, 'precision = "fp16"\n')
    command = ["bench", "--suite", str(path), "--out", str(tmp_path / "run"), "--no-report", "--workers", "1"]
    assert main([*command, "--precision", given, "--device", "cpu"]) == 0
    assert {cell.precision for cell in Run.open(tmp_path / "run").cells()} == {used}


def test_the_seed_of_a_suite_holds_unless_another_is_given(tmp_path):
    path = write(tmp_path, "seed = 5\n")
    assert plan_request(None, None, None, None, path, None, None, ())[0].seed == 5
    assert plan_request(None, None, None, None, path, None, 7, ())[0].seed == 7


@pytest.mark.parametrize("text, hint", [
    ('precision = "fp8"', "precision is not one of auto, fp32"), ('limt = 3', "unknown keys: limt"), ('seed = "a"', "whole number"),
    ("this is not TOML", "not valid TOML"), ("[sweep]\nlimit = 3", r"\[\[sweep\]\]"),
    ("[[sweep]]\nlimt = 3", "unknown keys: limt; there are: models"),
])  # fmt: skip
def test_a_suite_with_a_fault_is_refused(tmp_path, text, hint):
    with pytest.raises(UserError, match=hint):
        read_suite(write(tmp_path, text))


def test_a_suite_can_be_a_whole_job(tmp_path, monkeypatch, capsys):
    """Device, workers, plugin, run directory and report stand in the file; what is given beside it wins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "halve.py").write_text(
        "from robustcal import register\n\n@register.attack(kind='control', returns='last')\n"
        "def halve_it(classifier, images, labels, threat, noise):\n    'Half the brightness.'\n    return images / 2\n"
    )
    lines = 'device = "cpu"\nworkers = 1\nplugins = ["halve.py"]\nout = "deep/run"\n[report]\nformats = ["text", "csv"]\nlayout = "main"\n'
    path = write(tmp_path, lines)
    path.write_text(path.read_text().replace('"fgsm"', '"halve-it"') + "bins = 10\n")
    assert main(["bench", "--suite", "mine.toml", "--limit", "4"]) == 0
    text = capsys.readouterr().out
    assert "halve-it" in text and (tmp_path / "deep/run/report/cells.csv").is_file() and not (tmp_path / "deep/run/report/index.html").exists()
    assert job_of(path, "cuda:1", 3, ["other.py", "halve.py"], "else") == {
        "device": "cuda:1", "workers": 3, "plugins": ["halve.py", "other.py"], "out": "else", "report": read_suite(path)["report"]
    }  # fmt: skip
    assert job_of(None) == {"device": "auto", "workers": None, "plugins": [], "out": "runs/bench", "report": {}}


@pytest.mark.parametrize("text, hint", [
    ("workers = \"two\"", "workers is not a whole number"), ("plugins = [1]", "plugins is not a list of texts"), ("out = 3", "out is not a text"),
    ("[report]\nlayuot = \"main\"", "unknown keys: layuot; there are: formats"), ("[report]\nbins = \"x\"", "bins is not a whole"),
])  # fmt: skip
def test_a_job_with_a_fault_is_refused(tmp_path, text, hint):
    with pytest.raises(UserError, match=hint):
        read_suite(write(tmp_path, text))


def test_the_report_options_of_a_suite_are_those_of_the_verb():
    import inspect

    import robustcal

    assert set(REPORT) == set(inspect.signature(robustcal.report).parameters) - {"runs", "out", "width"}


@pytest.mark.parametrize("name, sets", [("paper-ttc", 16), ("paper-fare", 13), ("paper-tecoa", 15), ("paper-r-tpt", 8), ("paper-c-tpt", 11)])
def test_a_published_protocol_is_planned_without_its_data_and_weights(name, sets, monkeypatch, tmp_path):
    """What `bench --dry-run` plans, from cards alone; its timing has tests of its own."""
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    suite, outline = read_suite(name), Outline()
    request, _ = plan_request(None, None, None, None, name, None, None, ())
    plan = make_plan(request, open_source=outline.open_source, identify=outline.identify)
    radii = len(suite.get("eps", [0]))
    attacked = len(suite["attacks"]) - 1
    assert len(plan.cells) == len(suite["models"]) * sets * (1 + attacked * radii)
    assert len(plan.distinct("dataset")) == sets and len(outline.absent) == sets + len(plan.distinct("model"))
    try_attacks(plan)
