"""The house itself: imports flow one way, a file's name is its registered name, every plugin keeps its protocol."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustcal import registry
from robustcal.types import Dataset

PACKAGE = registry.ROOT
FAMILIES = ("models", "datasets", "attacks", "objectives", "metrics")
#: What each room may import from the package, besides itself.
GROUND = {"types", "noise", "dirichlet", "exact", "cell", "world", "registry", "clip", "records"}
MAY_IMPORT = {
    "types": set(),
    "cell": {"types"},
    "noise": {"types"},
    "dirichlet": {"types"},
    "exact": set(),
    "world": {"types"},
    "registry": {"types"},
    "clip": {"types"},
    "records": {"types", "cell"},
    **{family: GROUND for family in FAMILIES},
    "sweep": GROUND | set(FAMILIES),
    "check": GROUND | set(FAMILIES),
    "report": {"types", "cell", "records", "registry", "metrics"},
    "train": GROUND | set(FAMILIES) | {"check"},
    "api": GROUND | {"sweep", "report"},
    "cli": GROUND | set(FAMILIES) | {"sweep", "check", "report", "train", "api"},
}


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or path.parent != PACKAGE]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """The rooms of the package that a file imports, from its text."""
    here = ["robustcal", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            parts = base + (node.module or "").split(".")
            parts = [part for part in parts if part]
            if parts[:1] == ["robustcal"]:
                yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("robustcal."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_flow_one_way(path):
    own = room(path)
    reached = {name for name in imported_rooms(path) if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}
    assert reached - {own} <= MAY_IMPORT[own], f"{path} reaches up or sideways"


def test_the_import_test_sees_a_wrong_import(tmp_path, monkeypatch):
    wrong = PACKAGE / "attacks" / "wrong.py"
    source = "from ..datasets import world\nfrom .. import sweep\n"
    monkeypatch.setattr(Path, "read_text", lambda self: source)
    assert set(imported_rooms(wrong)) == {"datasets", "sweep"}


@pytest.mark.parametrize("family", FAMILIES)
def test_file_names_are_registered_names(family):
    for entry in getattr(registry, family).entries():
        if entry.kind == "file":
            plugin = getattr(registry, family).get(entry.name)
            assert plugin.name == entry.name
            assert entry.summary, f"{entry.origin} has no docstring"


def test_every_attack_is_a_pure_function_of_five_arguments():
    for name in registry.attacks.names():
        parameters = list(inspect.signature(registry.attacks.get(name).make).parameters.values())
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == ["classifier", "images", "labels", "threat", "noise"], name
        assert registry.attacks.get(name).meta.get("kind") in {"clean", "control", "white-box", "black-box", "transfer"}


@pytest.mark.parametrize("name", ["world-source", "world-shapes", "world-letters", "digits"])
def test_embedded_datasets_keep_the_protocol(name):
    dataset = registry.datasets.build(name)
    assert isinstance(dataset, Dataset)
    assert len(dataset.ids) == len(dataset.labels) == len(set(dataset.ids))
    batch = dataset.read([3, 0])
    assert batch.ids == (dataset.ids[3], dataset.ids[0])
    assert batch.images.shape == (2, 3, dataset.resolution, dataset.resolution)
    assert batch.images.dtype == torch.float32 and 0 <= batch.images.min() and batch.images.max() <= 1
    assert np.array_equal(batch.labels.numpy(), np.asarray(dataset.labels)[[3, 0]])
    assert all("{}" in template for template in dataset.templates)
    assert dataset.identity


def test_help_and_ls_do_not_import_torch():
    code = (
        "import sys; from robustcal.cli import main\n"
        "main(['ls', '--json'])\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'open_clip'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
