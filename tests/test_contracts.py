"""The house itself: imports flow one way, a file's name is its registered name, every plugin keeps its protocol."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustcal import registry
from robustcal.sweep.declared import ATTACK_META
from robustcal.types import Dataset

PACKAGE = registry.ROOT
FAMILIES = ("models", "datasets", "attacks", "objectives", "metrics")
HOUSE = PACKAGE.parent / "docs" / "house.md"


def floors():
    """Room -> floor, from the drawing in docs/house.md, the ground floor being 0."""
    drawing = re.search(r"```text\n(.*?)```", HOUSE.read_text(), re.DOTALL)[1]
    rows = [re.split(r" {3,}", line)[0].split() for line in drawing.splitlines()]
    return {room: floor for floor, rooms in enumerate(reversed(rows)) for room in rooms}


FLOORS = floors()


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


def test_the_drawing_shows_every_room_and_no_other():
    assert set(FLOORS) == {room(path) for path in modules()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_flow_down(path):
    own = room(path)
    reached = {name for name in imported_rooms(path) if name in FLOORS} - {own}
    assert not [name for name in reached if FLOORS[name] >= FLOORS[own]], f"{path} reaches up or sideways"
    if own in ("report", "leaderboard"):
        assert not reached & (set(FAMILIES) - {"metrics"}) and not reached & {"clip", "dirichlet", "noise", "exact"}


def test_no_two_files_import_each_other():
    """No circle among the imports that run when a module is imported (those inside functions and for types do not)."""
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()}
    arrows = {}
    for name, path in names.items():
        here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        arrows[name] = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                base = here[: len(here) - node.level + 1] + (node.module or "").split(".")
                inside = {".".join(filter(None, [*base, alias.name])) for alias in node.names} | {".".join(filter(None, base))}
                arrows[name] |= inside & set(names) - {name}
    while leaves := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert not arrows, f"a circle among {sorted(arrows)}"


def test_nothing_below_the_report_is_an_open_dictionary_by_habit():
    """`dict[str, Any]` stands only where keys are open: cards, JSON headers, the columns of a record, keyword arguments."""
    below = [path for path in modules() if room(path) in ("cell", "sweep", "records", "registry")]
    found = {str(path.relative_to(PACKAGE)): len(re.findall(r"(?:dict|Mapping)\[str, Any\]", path.read_text())) for path in below}
    assert sum(found.values()) <= 42, {name: count for name, count in found.items() if count}


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
        assert registry.attacks.get(name).meta.get("kind") in ATTACK_META["kind"]


@pytest.mark.parametrize("name", ["world-source", "world-shapes", "world-letters", "digits"])
def test_embedded_datasets_keep_the_protocol(name):
    dataset = registry.datasets.build(name)
    assert isinstance(dataset, Dataset)
    assert len(dataset.ids) == len(dataset.labels) == len(set(dataset.ids))
    batch = dataset.read([3, 0])
    assert batch.ids == (dataset.ids[3], dataset.ids[0])
    assert batch.images.shape == (2, 3, dataset.resolution, dataset.resolution)
    assert batch.images.dtype == torch.float32 and batch.images.min() >= 0 and batch.images.max() <= 1
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
