"""Whatever is typed: exit status 0, 2 or 130, at most one line of error, never a traceback."""

import contextlib
import io
import json
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robustcal import bench, registry
from robustcal.cli import main
from robustcal.sweep import estimate, local
from robustcal.train import train
from robustcal.train.settings import TASKS
from robustcal.types import UserError

PLUGIN = '''
"""A linear model without weights."""
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

class Linear:
    fingerprint = "linear-0"
    def classifier(self, classnames, templates=()):
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, len(classnames)))
        return LogitClassifier(body, classnames)

@register.model
def fuzz_linear(*, scale: float = 1.0, name: str = "x", flag: bool = False, count: int | None = None):
    """A linear model."""
    return Linear()
'''

#: Words that mean something somewhere, so that inputs get past the first check.
WORDS = st.sampled_from([
    "fuzz-linear", "tiny-clip", "digits", "pgd", "clean", "cw", "square", "autoattack", "autoattack:paper", "transfer", "folder", "coco",
    "webdataset", "torchattacks:DIFGSM", "world-shapes", "cifar10", "checkpoint", "interpolate", "temperature", "ttc", "eot",
    "steps=3", "steps=-1", "steps=1e9", "step=1/0", "norm=l2", "norm=l7", "return=last", "loss=ce", "eps=1", "from=tiny-clip",
    "resolution=0", "resolution=native", "split=test", "ViT-B-32/openai", "hf-hub:a/b", "local-dir:nowhere", "none", "true", "nan",
    "inf", "1/255", "0", "-1", "1e999", "1/0", "auto", "cpu", "cuda:7", "fp32", "bf16", "tiny", "paper-16", "../..", "/", ".", "~",
    "/dev/null", "/proc/self/mem", "text", "md", "html", "main", "paper", "models", "environment", "", " ", ":", "=", ",", "::", "=:=",
    "é", "\u202e", "{}", "%s", "$HOME", "*", "-", "--",
])  # fmt: skip
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)  # what a system can hand over
TEXT = st.one_of(WORDS, st.lists(WORDS, min_size=2, max_size=4).map(":".join), ANY)
BENCH = ["--models", "--attacks", "--datasets", "--eps", "--limit", "--seed", "--device", "--precision", "--batch-size", "--workers",
         "--suite", "--plugin", "--data-root", "--engine", "--skip-unreadable", "--dry-run", "--no-report"]  # fmt: skip
TRAIN = ["--model", "--dataset", "--objective", "--epochs", "--steps", "--seed", "--device", "--precision", "--plugin", "--data-root",
         "--out"]  # fmt: skip
#: One setting of a recipe per line; what stands here is short and small.
SHORT = {"model": "tiny-clip", "dataset": "world-source:split=train:size=32", "batch": 8, "held_out": 8, "steps": 2}


@pytest.fixture(scope="module", autouse=True)
def cheap(tmp_path_factory):
    """Nothing is computed and nothing timed: only what stands before that is under test here."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "fuzz_net.py"
    path.write_text(PLUGIN)
    registry.load_plugin_file(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ROBUSTCAL_OFFLINE", "1")
        patch.setenv("ROBUSTCAL_DATA", str(folder / "data"))
        patch.delenv("ROBUSTCAL_DEBUG", raising=False)
        patch.setattr(local, "execute", lambda *_, **__: iter(()))
        patch.setattr(estimate, "seconds_per_image", lambda *_: (1e-3, 3e-3))
        patch.setattr(estimate, "passes_of", lambda *_: (1.0, 1.0))
        patch.setattr(train.Loop, "fit", lambda loop: {})
        patch.setattr(train, "_finish", lambda *_: None)
        patch.setattr(train, "bundle", lambda *_: None)
        yield
    registry.models.plugins.pop("fuzz-linear", None)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Writes settings as a recipe file, and returns its path."""
    path = tmp_path_factory.mktemp("recipe") / "short.toml"

    def write(settings):
        lines = (f"{key} = {json.dumps(value).replace('NaN', 'nan').replace('Infinity', 'inf')}" for key, value in settings.items())
        path.write_text("\n".join(lines))
        return str(path)

    return write


def run(argv):
    """(exit status, standard error) of a command in this process."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main(argv)
        except SystemExit as exit_:  # --help
            status = exit_.code
    return status, error.getvalue()


def check(argv):
    status, error = run(argv)
    lines = [line for line in error.splitlines() if line.startswith("robustcal: ")]
    assert status in (0, 2, 130), (argv, status, error)
    assert "Traceback" not in error, (argv, error)
    if status:  # one line; before it, what was taken from the default, and each cell that failed at once
        told = [line for line in lines if not line.startswith(("robustcal: not given, so", "robustcal: failed: "))]
        assert error.count("\n") == len(lines) and len(told) == 1, (argv, error)


PLAIN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@given(option=st.sampled_from(BENCH), values=st.lists(TEXT, max_size=2))
@example(option="--eps", values=["nan"])
@example(option="--eps", values=["1e999"])
@example(option="--limit", values=["9" * 30])
@example(option="--seed", values=["-1"])
@example(option="--workers", values=["-3"])
@example(option="--plugin", values=["/"])
@example(option="--suite", values=["/.toml"])
@PLAIN
def test_one_strange_option_of_bench(option, values):
    base = {"--models": "fuzz-linear", "--attacks": "clean", "--datasets": "digits", "--limit": "4", "--device": "cpu", "--out": "run"}
    base.pop(option, None)
    check(["bench", *(word for pair in base.items() for word in pair), "--no-report", option, *values])


@given(family=st.sampled_from(["--models", "--attacks", "--datasets"]), spec=TEXT)
@PLAIN
def test_strange_specs(family, spec):
    base = {"--models": "fuzz-linear", "--attacks": "clean", "--datasets": "digits", "--limit": "4", "--device": "cpu", "--out": "run"}
    base[family] = spec
    check(["bench", *(word for pair in base.items() for word in pair), "--no-report"])


@given(command=st.sampled_from(["ls", "report", "check", "train", "bench", "nonsense"]), words=st.lists(TEXT, min_size=1, max_size=3))
@settings(parent=PLAIN, max_examples=40)
def test_strange_commands(command, words):
    if command == "bench":
        words = ["--models", "clpi", *words]
    if command == "check":
        words = ["no-such-thing:" + word for word in words]  # without a name it inspects everything, which takes a while
    if command == "train":
        words = ["no-such-recipe" + word for word in words]
    check([command, *words])


@given(option=st.sampled_from(TRAIN), values=st.lists(TEXT, max_size=2))
@example(option="--epochs", values=["nan"])
@example(option="--epochs", values=["inf"])
@example(option="--seed", values=["9" * 20])
@example(option="--seed", values=["-1"])
@example(option="--steps", values=["9" * 30])
@example(option="--model", values=["ttc"])
@example(option="--objective", values=["ucat:tau=0"])
@example(option="--objective", values=["ucat:tau=-1"])
@example(option="--objective", values=["tga-zsr:resolution=0"])
@PLAIN
def test_one_strange_option_of_train(option, values, recipe):
    check(["train", recipe(SHORT), "--device", "cpu", *([] if option == "--out" else ["--out", "trained"]), option, *values])


TOML = st.one_of(
    TEXT, st.integers(), st.floats(), st.booleans(), st.lists(TEXT, max_size=2), st.lists(st.integers(), min_size=1, max_size=2),
    st.sampled_from(["pretrain", "zoo", "adamw", "tiny/zoo", 10**20, -1, 0, 2.0]),
)  # fmt: skip


@given(key=st.sampled_from(["task", *sorted({field.name for kind in TASKS.values() for field in fields(kind)})]), value=TOML)
@example(key="lr", value=float("nan"))
@example(key="lr", value=float("inf"))
@example(key="lr", value=-1.0)
@example(key="beta2", value=2.0)
@example(key="model", value="ttc")
@example(key="eps", value="1e999")
@example(key="recipes", value=3)
@example(key="task", value="zoo")
@PLAIN
def test_one_strange_setting_of_a_recipe(key, value, recipe):
    check(["train", recipe({**SHORT, key: value}), "--device", "cpu", "--out", "trained"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "trains for no step"), (["--epochs", "1e-9"], "trains for no step"),
        (["--steps", "0"], "steps is 0; it must be 1 or more"), (["--steps", "-1"], "steps is -1; it must be 1 or more"),
        (["--seed", "9" * 20], "below 2**63"), (["--epochs", "inf"], "finite"), (["--model", "ttc:model=tiny-clip"], "cannot be trained"),
        (["--objective", "ucat:tau=0"], "tau is 0.0; it must be above 0"),
        (["--objective", "agft:ratio=-1"], "ratio is -1.0; it must be above 0"),
        (["--objective", "comp-tga:refine=-1"], "refine is -1.0; it must be 0 or more"),
    ],
)  # fmt: skip
def test_a_mistake_in_train_is_named(words, message, recipe):
    status, error = run(["train", recipe({**SHORT, "steps": 0}), "--device", "cpu", "--out", "trained", *words])
    assert status == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", ""], "--eps is empty"), (["--eps", "1/255", ","], "--eps is empty"),
        (["--workers", "0"], "--workers '0' is not a positive integer\n"), (["--batch-size", "0"], "positive integer or auto\n"),
        (["--seed", str(2**63)], "from 0 to 2**63 - 1"),
    ],
)
def test_a_mistake_in_bench_is_named(words, message):
    status, error = run(["bench", "--models", "fuzz-linear", "--datasets", "digits", "--attacks", "clean", "--dry-run", *words])
    assert status == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("given", [{"limit": 4.5}, {"limit": "4"}, {"seed": 1.0}])
def test_counts_are_whole_numbers(given, tmp_path):
    (name, value), = given.items()
    with pytest.raises(UserError, match=f"{name} {value!r} is not a whole number"):
        bench("fuzz-linear", "clean", "digits", out=tmp_path / "run", **given)


def test_training_leaves_a_sweep_alone(recipe, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    status, error = run(["train", recipe(SHORT), "--device", "cpu", "--out", str(tmp_path)])
    assert status == 2 and f"'{tmp_path}' holds the records of a sweep" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_list_of_recipes_lists_no_list(recipe):
    status, error = run(["train", recipe({"task": "zoo", "recipes": ["tiny/zoo"]}), "--device", "cpu", "--out", "trained"])
    assert status == 2 and "'tiny/zoo', itself a list" in error


@given(text=st.text(max_size=200), name=st.sampled_from(["suite.toml", "plugin.py", "card.toml"]))
@example(text="models = 3", name="suite.toml")
@example(text='models = ["tiny-clip"]\neps = [1]\ndatasets = {}', name="suite.toml")
@example(text="sweep = [1, 2]", name="suite.toml")
@example(text='limit = "x"', name="suite.toml")
@example(text="seed = []", name="suite.toml")
@example(text="raise SystemExit(3)", name="plugin.py")
@example(text="x = ", name="card.toml")
@settings(parent=PLAIN, max_examples=30)
def test_strange_files(text, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    if name == "suite.toml":
        check(["bench", "--suite", str(path), "--models", "fuzz-linear", "--datasets", "digits", "--limit", "4", "--out", "run", "--no-report"])
    else:
        check(["ls", "attacks", "--plugin", str(path)])
