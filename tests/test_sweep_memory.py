"""Freed memory stays with a worker's process: once its passes have settled, another touches no new page."""

import subprocess
import sys

import pytest

from robustcal.sweep.hardware import keep_memory

WORK = """
import resource, sys, torch
from robustcal.sweep.hardware import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept" and not keep_memory():
    raise SystemExit("no mallopt")
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def passes():
    held = [torch.ones(16 << 20) for _ in range(4)]  # 64 MB each: beyond what glibc keeps by itself
for _ in range(3):  # where blocks lie settles within two passes
    passes()
before = faults()
passes()
print(faults() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", WORK, how], capture_output=True, text=True, check=False)
    if "no mallopt" in done.stderr:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_second_pass_asks_the_system_for_no_memory() -> None:
    given_back = faults("given-back")
    assert given_back > 100  # what this is about, even with huge pages
    assert faults("kept") < given_back / 10


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_memory()
