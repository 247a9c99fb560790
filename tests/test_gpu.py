"""What needs a GPU (`pytest -m gpu`): every attack, every objective, resuming, memory that runs out, two processes on one card.

And `benchmarks/gpu.py`, which runs through without one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import robustcal
from robustcal import registry
from robustcal.noise import Draw, Noise, draw_ahead
from robustcal.records.store import Run
from robustcal.sweep.loading import moved, on_gpu
from robustcal.sweep.pixels import unit

ROOT = Path(__file__).resolve().parents[1]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]
#: Attacks that need an argument to be started.
SPECS = {"transfer": "transfer:from=tiny-tecoa", "corruption": "corruption:fog:severity=3", "torchattacks": "torchattacks:PGD:steps=2",
         "autoattack": "autoattack:rand", "eot": "eot:steps=2:draws=2", "reprompted": "reprompted:template=a {}:steps=2"}  # fmt: skip
FAMILY = sorted(registry.attacks.names())


def marked(function):
    for mark in needs_gpu:
        function = mark(function)
    return function


def sweep(out, attacks, device="cuda", **how):
    asked = {"models": ["tiny-clip"], "datasets": ["digits"], "eps": "2/255", "limit": 40, "precision": "fp32", "progress": False}
    return Run.open(robustcal.bench(attacks=attacks, device=device, out=out, **(asked | how)).path)


def flips(one, other):
    """Predictions that differ, of how many, over all cells."""
    found = [(one.read(cell.id)["prediction"], other.read(cell.id)["prediction"]) for cell in one.cells()]
    return sum(int((a != b).sum()) for a, b in found), sum(len(a) for a, _ in found)


@marked
@pytest.mark.parametrize("name", FAMILY)
def test_every_attack_runs_on_the_gpu_as_on_the_cpu(name, tmp_path):
    spec = SPECS.get(name, name)
    short = {"steps": 3, "queries": 20}
    if spec == name:
        plugin, arguments = registry.attacks.arguments(registry.attacks.spec(name))
        spec = ":".join([name, *(f"{key}={value}" for key, value in short.items() if key in arguments)])
    differ, count = flips(sweep(tmp_path / "gpu", [spec]), sweep(tmp_path / "cpu", [spec], device="cpu", workers=1))
    assert differ <= 0.1 * count


@marked
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_search_may_be_bf16_and_the_judge_is_fp32(precision, tmp_path):
    run = sweep(tmp_path / "run", ["clean"], precision=precision)
    (cell,) = run.cells()
    (exact,) = (reference := sweep(tmp_path / "cpu", ["clean"], device="cpu", workers=1)).cells()
    assert np.allclose(run.read(cell.id)["confidence"], reference.read(exact.id)["confidence"], atol=1e-4)


@marked
@pytest.mark.parametrize("name", sorted(registry.objectives.names()))
def test_every_objective_trains_on_the_gpu(name, tmp_path):
    folder = robustcal.train("tiny/ucat", objective=name, steps=2, out=tmp_path / "run", device="cuda", held_out=20, batch=16, workers=0)
    assert (folder / "card.json").is_file()


@marked
def test_an_interrupted_sweep_continues_on_the_gpu_with_the_same_records(tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if type(event).__name__ == "ShardDone":
            raise Stop

    how = {"attacks": ["clean", "pgd:steps=3"], "limit": 300, "batch_size": 128}
    with pytest.raises(Stop):
        sweep(tmp_path / "run", progress=stop, **how)
    differ, count = flips(sweep(tmp_path / "run", **how), sweep(tmp_path / "whole", **how))
    assert differ == 0 and count == 600


@marked
def test_memory_that_runs_out_on_the_gpu_halves_the_batch(tmp_path):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(max(0.001, 300e6 / total))
    try:
        small = sweep(tmp_path / "small", ["pgd:steps=2"], datasets=["digits:resolution=224"], batch_size=512, limit=512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    differ, count = flips(small, sweep(tmp_path / "whole", ["pgd:steps=2"], datasets=["digits:resolution=224"], batch_size=64, limit=512))
    assert count == 512 and differ <= 5


@marked
def test_two_processes_share_one_card(tmp_path):
    command = [sys.executable, "-m", "robustcal.cli", "bench", "--models", "tiny-clip", "--attacks", "clean", "pgd:steps=3", "--datasets",
               "digits", "--eps", "2/255", "--limit", "600", "--device", "cuda", "--no-report", "--out", str(tmp_path / "run")]  # fmt: skip
    drivers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [driver.communicate(timeout=300)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    run = Run.open(tmp_path / "run")
    assert not any(run.missing(cell) for cell in run.cells())


@marked
def test_pixels_and_noise_are_the_same_bits_on_the_gpu():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(on_gpu(moved(every, "cuda")).cpu(), unit(every))
    ids, draw = list("abcdef"), Draw("random", (3, 32, 32))
    ahead = draw_ahead(0, ids, draw, 4, pin=True)
    there = type(ahead)(draw, moved(ahead.values, "cuda"), ahead.states)
    for low, high in ((-1 / 255, 1 / 255), (0.0, 1.0), (-0.3, 0.7)):
        ours = Noise(0, ids, "cuda", there).uniform(draw.shape, low, high).cpu()
        assert torch.equal(ours, Noise(0, ids).uniform(draw.shape, low, high))


def test_the_benchmark_runs_through_on_the_cpu_and_writes_what_it_has(tmp_path):
    """Every part is there; one whose budget is over is named, and the others go on."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    parts = ["peak", "bench small pgd:steps=2", "bench small apgd:steps=3", "agreement", "variants", "training"]
    assert set(parts) <= set(found) and not [name for name in parts if "failed" in found[name] and "not done" not in found[name]["failed"]]
    assert any("images_per_second" in found[name] for name in parts) and "images_per_second" in (tmp_path / "gpu.txt").read_text()
    if "clean" in found["agreement"]:
        assert found["agreement"]["clean"] == {"n": 16, "flips": 0, "confidence": 0.0, **{k: v for k, v in found["agreement"]["clean"].items() if k not in ("n", "flips", "confidence")}}


def test_a_part_that_overruns_or_dies_is_named():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    code = (
        "import os, sys, time; sys.path.insert(0, 'benchmarks'); import gpu\n"
        "print(gpu.run_part(lambda job: time.sleep(60), None, (), 0.2)['failed'])\n"
        "print(gpu.run_part(lambda job: os.kill(os.getpid(), 9), None, (), 20)['failed'])\n"
        "print(gpu.run_part(lambda job: 1 / 0, None, (), 20)['failed'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["not done within 0.2 s", "its process died", "ZeroDivisionError: division by zero"], done.stderr
