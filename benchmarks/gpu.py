"""Everything about speed on one card, in one command and eight minutes; it always ends, and writes what it has.

    python benchmarks/gpu.py                           # CUDA: ViT-B/32 and ViT-L/14, random weights, 1,000 classes
    python benchmarks/gpu.py --tests                   # and `pytest -m gpu` afterwards
    python benchmarks/gpu.py --device cpu --tiny       # runs through anywhere, in under a minute; its numbers mean nothing

Writes gpu.json and gpu.txt into --out. Each part runs in a process of its own with a budget of seconds: one that fails or
overruns is named, the others go on. Weights are random and images are noise, made here as JPEG files and thrown away: speed
does not depend on either, accuracies here say only whether two searches of the same model agree.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from attack_speed import compare, matmul_peak, step_flops
from PIL import Image
from random_clip import main as write_random

import robustcal
from robustcal import registry
from robustcal.attacks.losses import cross_entropy
from robustcal.attacks.pgd import look
from robustcal.records.store import Run
from robustcal.sweep.events import ShardDone
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import SEARCH_DTYPES
from robustcal.sweep.worker import on_device

SMALL = {
    "embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}  # fmt: skip


class Sizes(NamedTuple):
    """How much is computed: architectures with their number of images, classes, side of the files, attacks, batch of loops."""

    models: dict[str, int]
    classes: int
    side: int
    attacks: tuple[str, ...]
    batch: int
    steps: int
    train: int
    budget: float  #: seconds of one part, times its weight


ATTACKS = ("pgd:steps=10", "pgd:steps=100", "apgd:steps=100")
FULL = Sizes({"ViT-B-32": 1024, "ViT-L-14": 128}, 1000, 256, ATTACKS, 128, 10, 200, 38)
TINY = Sizes({"small": 6}, 5, 40, ("pgd:steps=2", "apgd:steps=3"), 4, 2, 3, 40)


class Job(NamedTuple):
    """Where, and with what."""

    device: str
    sizes: Sizes
    folder: Path  #: weights, images and runs, thrown away afterwards

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def search(self) -> str:
        return "bf16" if self.cuda and torch.cuda.is_bf16_supported() else "fp32"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], times: int = 3) -> float:
        """The best of some calls, after one that warms up."""
        best = float("inf")
        for _ in range(times + 1):
            start = time.perf_counter()
            work()
            self.wait()
            best = min(best, time.perf_counter() - start) if _ else best
        return best

    def spec(self, model: str) -> str:
        """The spec of a model of random weights, which are written on first use."""
        folder = self.folder / model
        if not folder.exists():
            write_random(SMALL if model == "small" else model, folder)
        return f"clip:local-dir:{folder}"

    def classifier(self, model: str) -> torch.nn.Module:
        names = [f"thing {label}" for label in range(self.sizes.classes)]
        built = on_device(registry.models.build(self.spec(model)), self.device)
        return built.classifier(names, ["This is a photo of a {}"]).to(self.device)

    def images(self) -> str:
        """The spec of a folder of JPEG files: as many as the largest model takes, and one of each class at least."""
        root, count = self.folder / "images", max(self.sizes.models.values())
        generator = np.random.default_rng(0)
        for number in range(0 if root.exists() else max(count, self.sizes.classes)):
            place = root / f"thing {number % self.sizes.classes:04d}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            coarse.resize((self.sizes.side + 20, self.sizes.side)).save(place / f"{number}.jpg", quality=90)
        return f"folder:{root}"


# -- parts: each returns a dictionary -----------------------------------------------------------------------------------
def peak(job: Job) -> dict[str, float]:
    """Measured matrix products, in TFLOP/s; TF32 off."""
    found = {}
    with robustcal.exact.full_fp32():
        for name in ("bf16", "fp32"):
            args = argparse.Namespace(device=job.device, search=name, clock="wall")
            found[f"{name}_tflops"] = matmul_peak(args) / 1e12
    return found


def sweep(job: Job, model: str, attack: str) -> dict[str, Any]:
    """An attack from JPEG files through the whole of `bench`: images a second, share of the peak, idle share."""
    count = job.sizes.models[model]
    side = 32 if model == "small" else 224
    classifier = job.classifier(model)
    flops = step_flops(classifier, torch.rand(1, 3, side, side, device=job.device))
    args = argparse.Namespace(device=job.device, search=job.search, clock="wall")
    best = matmul_peak(args)
    del classifier
    times: list[tuple[float, float]] = []

    def tell(event: Any) -> None:
        if isinstance(event, ShardDone):
            times.append((time.perf_counter(), event.seconds))

    start = time.perf_counter()
    done = robustcal.bench(
        models=[job.spec(model)], attacks=[attack], datasets=[f"{job.images()}:resolution={side}"], eps="1/255", limit=count,
        device=job.device, precision=job.search, workers=1, out=job.folder / f"run-{model}-{attack.replace(':', '-')}",
        progress=tell,
    )  # fmt: skip
    whole, attacking = times[-1][0] - start, sum(seconds for _, seconds in times)
    window = times[-1][0] - times[0][0] + times[0][1]  # from the first attack on; the first shard includes its own reading
    run = Run.open(done.path)
    records = run.read(run.cells()[0].id, ("forwards", "backwards"))
    passes = float((records["forwards"] + records["backwards"]).sum()) + count  # and the judge's
    return {
        "images_per_second": count / attacking, "whole_images_per_second": count / whole,
        "share_of_peak": passes * flops / 2 / attacking / best, "idle_share": max(0.0, 1 - attacking / window), "seconds": whole,
        "shards": len(times), "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if job.cuda else None,
    }  # fmt: skip


def loops(job: Job) -> dict[str, Any]:
    """Our loop, torchattacks' and the published one on the same images; bf16 against fp32 search, both verified in fp32."""
    model = next(iter(job.sizes.models))
    args = argparse.Namespace(
        device=job.device, batch=job.sizes.batch, steps=job.sizes.steps, rounds=2, search=job.search, quick=True, clock="wall"
    )
    built = on_device(registry.models.build(job.spec(model)), job.device)
    return compare(args, built, [f"thing {label}" for label in range(job.sizes.classes)], ["This is a photo of a {}"])


def agreement(job: Job) -> dict[str, Any]:
    """The same cells on this device and on the CPU, in fp32: how many predictions differ, and confidences by how much."""
    how: dict[str, Any] = {"models": ["tiny-clip"], "attacks": ["clean", "pgd:steps=5", "apgd:steps=5"], "datasets": ["digits"],
                           "eps": "2/255", "precision": "fp32", "workers": 1, "progress": False,
                           "limit": 16 if job.sizes is TINY else 512}  # fmt: skip
    runs = [Run.open(robustcal.bench(device=device, out=job.folder / name, **how).path) for name, device in
            (("here", job.device), ("cpu", "cpu"))]  # fmt: skip
    found = {}
    for cell in runs[0].cells():
        here, there = (run.read(cell.id, ("prediction", "confidence")) for run in runs)
        flips = int((here["prediction"] != there["prediction"]).sum())
        apart = float(np.abs(here["confidence"] - there["confidence"]).max())
        found[cell.attack.partition(":")[0]] = {"n": cell.n, "flips": flips, "confidence": apart}
    return found


def variants(job: Job) -> dict[str, Any]:
    """One step of an attack (forward, input gradient) in seconds: plain, channels-last, compiled, as a CUDA graph."""
    model = next(iter(job.sizes.models))
    classifier = job.classifier(model)
    side = 32 if model == "small" else 224
    images = torch.rand(job.sizes.batch, 3, side, side, device=job.device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=job.device)
    meter = Meter(classifier, len(images), SEARCH_DTYPES[job.search])

    def step() -> torch.Tensor:
        return look(meter, images, labels, cross_entropy)[0]

    found: dict[str, Any] = {"channels_last_s": job.seconds(step)}  # what `on_device` sets
    classifier.visual.to(memory_format=torch.contiguous_format)
    found["plain_s"] = job.seconds(step)
    for name, make in (("compiled_s", lambda: torch.compile(step)), ("cuda_graph_s", lambda: captured(step))):
        if not job.cuda:
            found[name] = "measured on CUDA alone"
            continue
        try:
            found[name] = job.seconds(make())
        except Exception as error:
            found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return found


def captured(step: Callable[[], Any]) -> Callable[[], None]:
    """The step as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def training(job: Job) -> dict[str, Any]:
    """Fine-tuning by a bundled recipe: images a second, from the first logged step to the last."""
    times: list[tuple[float, int]] = []

    def tell(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            times.append((time.perf_counter(), event["step"]))

    batch = 8 if job.sizes is TINY else 128
    robustcal.train("tiny/ucat", steps=job.sizes.train, out=job.folder / "trained", device=job.device, progress=tell,
                    log_every=1, eval_steps=0, held_out=20, batch=batch, workers=0)  # fmt: skip
    (first, begin), (last, end) = times[0], times[-1]
    return {"images_per_second": batch * (end - begin) / (last - first), "batch": batch, "steps": end}


# -- the parts together -------------------------------------------------------------------------------------------------
def parts_of(sizes: Sizes) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], float]]:
    """Name -> function, its arguments, and how much of the budget it may take."""
    weight = {"ViT-L-14": 1.2}
    sweeps = {f"bench {model} {attack}": (sweep, (model, attack), weight.get(model, 1.0)) for model in sizes.models for attack in
              sizes.attacks}  # fmt: skip
    return {"peak": (peak, (), 0.5), **sweeps, "loops": (loops, (), 1.5), "agreement": (agreement, (), 1.0),
            "variants": (variants, (), 1.5), "training": (training, (), 1.0)}  # fmt: skip


def child(function: Callable[..., Any], job: Job, given: tuple[Any, ...], answer: Any) -> None:
    """Run one part and send what it found, or what went wrong in one line."""
    try:
        answer.send(function(job, *given))
    except BaseException as error:
        answer.send({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
    os._exit(0)


def run_part(function: Callable[..., Any], job: Job, given: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """One part in a process of its own, for at most so many seconds. It is forked: this process has touched no GPU."""
    context = multiprocessing.get_context("fork")
    there, here = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=child, args=(function, job, given, here))
    process.start()
    here.close()
    found: dict[str, Any] = {"failed": f"not done within {seconds:g} s"}
    if there.poll(seconds):
        try:
            found = there.recv()
        except EOFError:
            found = {"failed": "its process died"}
    process.kill()
    process.join()
    return {**found, "part_seconds": round(time.perf_counter() - start, 1)}


def lines(found: Any, before: str = "") -> list[str]:
    """A nested dictionary as text, one number a line."""
    if not isinstance(found, dict):
        return [f"{before:<58}{found:.4g}" if isinstance(found, float) else f"{before:<58}{found}"]
    return [line for name, value in found.items() for line in lines(value, f"{before} {name}".strip())]


def card(device: str) -> str:
    """The name of the card, asked of its driver, so that this process touches no GPU itself."""
    try:
        ask = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() if device == "cuda" else "none"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="sizes that any machine computes in seconds")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--tests", action="store_true", help="run pytest -m gpu afterwards")
    args = parser.parse_args()
    sizes = TINY if args.tiny else FULL
    if args.device == "cuda" and card("cuda") == "unknown":
        parser.error("no NVIDIA card is here (nvidia-smi finds none); --device cpu --tiny runs anywhere")
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "device": args.device, "card": card(args.device), "tiny": args.tiny, "torch": torch.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    start = time.perf_counter()

    def write() -> None:
        found["seconds"] = round(time.perf_counter() - start, 1)
        (args.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (args.out / "gpu.txt").write_text("\n".join(lines(found)) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        job = Job(args.device, sizes, Path(folder))
        for name, (function, given, weight) in parts_of(sizes).items():
            found[name] = run_part(function, job, given, weight * sizes.budget)
            print(f"{name}: {found[name].get('failed', 'done')}, {found[name]['part_seconds']} s", flush=True)
            write()
    if args.tests:
        ran = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-q"], capture_output=True, text=True)
        found["tests"] = ran.stdout.strip().splitlines()[-1:]
        write()
    print(f"{args.out / 'gpu.txt'}, {found['seconds']} s")


if __name__ == "__main__":
    main()
