"""Shared by all tests: one thread, so that runs beside each other are not slowed and results are repeatable."""

import os
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """What a test's name or parameters say of torchattacks is skipped where that extra is absent."""
    if find_spec("torchattacks") is None:
        skip = pytest.mark.skip(reason="torchattacks is not installed")
        for item in items:
            if "torchattacks" in f"{item.name} {getattr(getattr(item, 'callspec', None), 'params', '')}":
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def no_names_left_behind():
    """What the tests of a file register is gone after it: no other file sees names that depend on the order of the tests."""
    from robustcal import registry

    before = {name: set(family.plugins) for name, family in registry.register.families.items()}
    yield
    for name, family in registry.register.families.items():
        for plugin in set(family.plugins) - before[name]:
            if registry.families.ROOT not in Path(family.plugins[plugin].origin).parents:
                del family.plugins[plugin]


@pytest.fixture
def shared():
    """The folder of image packs beside the project; a test that needs it is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared folder beside the project")
    return SHARED


@pytest.fixture
def by_hand(monkeypatch):
    """Believe columns that do not follow from the logits: for reports about numbers that a test writes by hand."""
    monkeypatch.setattr("robustcal.records.derived.contradiction", lambda records: "")
