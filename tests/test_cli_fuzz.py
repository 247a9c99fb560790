"""Whatever is typed: exit status 0, 2 or 130, at most one line of error, never a traceback."""

import contextlib
import io

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robustcal import registry
from robustcal.cli import main
from robustcal.engine import estimate, local

PLUGIN = '''
"""A linear model without weights."""
import torch
from robustcal import register
from robustcal.classifier import LogitClassifier

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
    "fuzz-linear", "clip", "digits", "pgd", "clean", "cw", "square", "autoattack", "autoattack:paper", "transfer", "folder", "coco",
    "webdataset", "torchattacks:DIFGSM", "world-shapes", "cifar10", "checkpoint", "interpolate", "temperature", "ttc", "eot",
    "steps=3", "steps=-1", "steps=1e9", "step=1/0", "norm=l2", "norm=l7", "return=last", "loss=ce", "eps=1", "from=clip",
    "resolution=0", "resolution=native", "split=test", "ViT-B-32/openai", "hf-hub:a/b", "local-dir:nowhere", "none", "true", "nan",
    "inf", "1/255", "0", "-1", "1e999", "1/0", "auto", "cpu", "cuda:7", "fp32", "bf16", "tiny", "paper-16", "../..", "/", ".", "~",
    "/dev/null", "/proc/self/mem", "text", "md", "html", "main", "paper", "models", "environment", "", " ", ":", "=", ",", "::", "=:=",
    "é", "\u202e", "{}", "%s", "$HOME", "*", "-", "--",
])  # fmt: skip
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)  # what a system can hand over
TEXT = st.one_of(WORDS, st.lists(WORDS, min_size=2, max_size=4).map(":".join), ANY)
BENCH = ["--models", "--attacks", "--datasets", "--eps", "--limit", "--seed", "--device", "--precision", "--batch-size", "--workers",
         "--suite", "--plugin", "--data-root", "--engine", "--skip-unreadable", "--dry-run", "--no-report"]  # fmt: skip


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
        yield
    registry.models.plugins.pop("fuzz-linear", None)


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
    if status:
        assert error.count("\n") == 1 and len(lines) == 1, (argv, error)


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


@given(text=st.text(max_size=200), name=st.sampled_from(["suite.toml", "plugin.py", "card.toml"]))
@example(text="models = 3", name="suite.toml")
@example(text='models = ["clip"]\neps = [1]\ndatasets = {}', name="suite.toml")
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
