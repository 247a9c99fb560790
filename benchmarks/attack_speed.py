"""How fast an attack runs: our PGD, torchattacks' PGD, and the loop of the published evaluations, side by side.

    python benchmarks/attack_speed.py                  # CPU: ViT-B/32, 100 classes, batch 32
    python benchmarks/attack_speed.py --quick --json   # under a minute on 2 cores: a quarter of the batch and classes
    python benchmarks/attack_speed.py --device cuda --classes 1000 --batch 256 --steps 100 --search bf16

All contenders attack the same images with the same weights (random), radius, step size and number of steps, in turns
within one run, so that a busy machine slows all alike; each one's fastest turn counts. Ratios are dimensionless:
`speedup_published` and `speedup_torchattacks` are their time over ours, `harness_overhead` is what reading the data,
verifying, measuring and writing records adds to a PGD-20 cell.

The published loop encodes the class prompts again in every step and calls `backward()` with all parameters requiring
gradients, which then accumulate. torchattacks runs on the same classifier object as ours: text head cached, gradients
for images only; the row `open_clip` is the same loop as ours on open_clip's own forward pass.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from attack_contenders import build, own, plain_forward, published, torchattacks_pgd
from attack_memory import peak_memory
from cells import cell as make_cell
from torch import Tensor

from robustcal import registry
from robustcal.clip.classifier import ClipModel, LogitClassifier
from robustcal.records.store import Run
from robustcal.sweep import verify
from robustcal.sweep.declared import threat_of
from robustcal.sweep.hardware import keep_memory
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import SEARCH_DTYPES, run_shard
from robustcal.types import Batch, parse_radius


def seconds(work: Callable[[], Tensor], args) -> tuple[float, Tensor]:
    """Time of `work` by the chosen clock, the device's queue drained before and after."""
    wait = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    wait()
    start = clock()
    result = work()
    wait()
    return clock() - start, result


def matmul_peak(args) -> float:
    """Floating-point operations per second of a square matrix product, repeated for about half a second."""
    size = 8192 if args.device.startswith("cuda") else 1024
    a = torch.rand(size, size, device=args.device).to(SEARCH_DTYPES[args.search])
    once = min(seconds(lambda: a @ a, args)[0] for _ in range(3))  # the first call pays for memory and kernels
    repeats = max(1, round(0.5 / max(once, 1e-6)))

    def products() -> Tensor:
        for _ in range(repeats):
            result = a @ a
        return result

    return 2 * size**3 * repeats / seconds(products, args)[0]


def step_flops(classifier, images: Tensor) -> float:
    """Operations of one attack step: twice the forward pass, for a gradient of the images alone costs as much."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        classifier(images[:1])
    return 2 * counter.get_total_flops() * len(images)


def compare(args, model: ClipModel, classnames: list[str], templates: list[str]) -> dict:
    classifier = model.classifier(classnames, templates)
    side = classifier.size
    images = torch.rand(args.batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(args.device)
    labels = verify.predict(classifier, images).argmax(1).to(args.device)
    contenders = {
        "own": own(classifier, args.device, args.search),
        "torchattacks": torchattacks_pgd(classifier),
        "published": published(model, classnames, templates, args.device),
    }
    if not args.quick:
        contenders["open_clip"] = own(plain_forward(classifier, model), args.device, args.search)
    for attack in contenders.values():  # first calls pay for memory and kernels
        attack(images[:2], labels[:2], 1)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    survived: dict[str, float] = {}
    peaks: list[float] = []
    for turn in range(args.rounds):
        order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in order:
            peaks.append(matmul_peak(args))  # in turns with the attacks: what slows the machine slows both
            took, adversarial = seconds(lambda: contenders[name](images, labels, args.steps), args)
            times[name].append(took)
            logits = verify.predict(classifier, adversarial)
            survived[name] = (logits.argmax(1) == labels.cpu()).float().mean().item()
    best = {name: min(values) for name, values in times.items()}
    peak = max(peaks)
    found = {
        "speedup_published": best["published"] / best["own"],
        "speedup_torchattacks": best["torchattacks"] / best["own"],
        **({"speedup_open_clip": best["open_clip"] / best["own"]} if "open_clip" in best else {}),
        "model_passes_per_second": 2 * args.steps * args.batch / best["own"],
        "share_of_matmul_peak": step_flops(classifier, images) * args.steps / best["own"] / peak,
        "matmul_peak_gflops": peak / 1e9,
        "seconds_per_step": {name: value / args.steps for name, value in best.items()},
        "robust_accuracy": survived,
    }
    if args.search != "fp32":
        exact = own(classifier, args.device, "fp32")(images, labels, args.steps)
        found["robust_accuracy"]["own, fp32"] = (
            (verify.predict(classifier, exact).argmax(1) == labels.cpu()).float().mean().item()
        )
    return found


def harness_overhead(args, model: ClipModel, classnames: list[str], templates: list[str]) -> float:
    """(reading + judging + records + metering) / attack, of one PGD-20 cell of one batch of 224-pixel images."""
    classifier = model.classifier(classnames, templates)
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec("pgd:steps=20:step=1/255:return=last"))
    threat = threat_of(plugin, arguments, parse_radius("1/255"), None)
    cell = make_cell("pgd:steps=20", "1/255", threat=threat, dataset="digits", model="random", precision=args.search)
    count = min(args.batch, 2) if args.quick else args.batch
    inside: list[float] = []

    def attack(*given):
        took, result = seconds(lambda: plugin.make(*given, **arguments), args)
        inside.append(took)
        return result

    dataset = registry.datasets.build("digits")
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {"command": "attack_speed"})

        def everything():
            batch = dataset.read(range(count))
            images = F.interpolate(batch.images, (224, 224)).to(args.device)
            batch = Batch(batch.ids, images, batch.labels.to(args.device))
            records = run_shard(cell, batch, classifier, attack, count)
            run.write_shard(cell.id, 0, records)

        total, _ = seconds(everything, args)
    return (total - sum(inside) + 20 * meter_cost(args, count)) / sum(inside)


def meter_cost(args, count: int) -> float:
    """Seconds that counting adds to one forward and backward pass of `count` images, on a model that costs nothing."""
    images = torch.rand(count, 3, 224, 224, device=args.device)
    small = LogitClassifier(torch.nn.Sequential(torch.nn.AvgPool2d(224), torch.nn.Flatten()), ["a", "b", "c"])

    def passes(target) -> float:
        def once():
            x = images.requires_grad_(True)
            return torch.autograd.grad(target(x).sum(), x)[0]

        return min(seconds(once, args)[0] for _ in range(5))

    return max(passes(Meter(small, count)) - passes(small), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture; weights are random")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--search", choices=sorted(SEARCH_DTYPES), default="fp32", help="dtype of our passes")
    parser.add_argument("--quick", action="store_true", help="batch 8, 25 classes, 2 steps, 2 rounds")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: processor time, for busy machines; only with OMP_NUM_THREADS=1")  # fmt: skip
    parser.add_argument("--only", choices=["speed", "harness", "memory"], help="one part of the three")
    parser.add_argument("--json", action="store_true", help="print one object instead of lines")
    args = parser.parse_args()
    if args.quick:
        args.batch, args.classes, args.steps, args.rounds = 8, 25, 2, 2
    if args.device == "cpu":
        keep_memory()  # as a worker does; all contenders gain
    model, classnames, templates = build(args.model, args.classes, args.device)
    found: dict = {}
    if args.only in (None, "speed"):
        found |= compare(args, model, classnames, templates)
    if args.only in (None, "harness"):
        found["harness_overhead"] = harness_overhead(args, model, classnames, templates)
    if args.only in (None, "memory"):
        counts = (256, 1024) if args.quick else (1024, 8192)
        with ThreadPoolExecutor(2) as pool:  # each in a process of its own
            found["peak_memory_mib"] = {str(n): round(m / 2**20, 1) for n, m in zip(counts, pool.map(peak_memory, counts))}
    found["setting"] = {k: v for k, v in vars(args).items() if k != "json"} | {"threads": torch.get_num_threads()}
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        items = value.items() if isinstance(value, dict) else [("", value)]
        for key, number in items:
            print(f"{name:<24}{key:<18}{f'{number:.4g}' if isinstance(number, float) else number}")


if __name__ == "__main__":
    main()
