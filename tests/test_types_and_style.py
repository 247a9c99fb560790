"""`make check`: the types hold and the linter is content."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
#: The version whose annotations the package was typed against; others have others.
TORCH = "2.14"


def run(*command):
    found = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def test_mypy_strict_passes():
    pytest.importorskip("mypy")
    if not torch.__version__.startswith(TORCH):
        pytest.skip(f"typed against torch {TORCH}, here is {torch.__version__}: run make check by hand")
    status, text = run("mypy")
    assert status == 0, text


def test_the_linter_passes():
    pytest.importorskip("ruff")
    status, text = run("ruff", "check")
    assert status == 0, text
