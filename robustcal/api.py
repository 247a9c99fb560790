"""The Python face of robustcal: the same few verbs as the command line."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry
from .finished import Bench
from .registry.suites import LISTS, job_of, read_suite, seed_of, sweeps_of, take_labels, whole

if TYPE_CHECKING:
    import pandas
    import torch

    from .cell import Cell
    from .sweep.events import Event
    from .sweep.plan import Failure, Plan, Request

#: What fills an axis that is not given.
DEFAULT = "tiny"


def bench(
    models: Iterable[str] | str | None = None,
    attacks: Iterable[str] | str | None = None,
    datasets: Iterable[str] | str | None = None,
    eps: Iterable[str | float] | str | float | None = None,
    *,
    suite: str | Path | None = None,
    limit: int | None = None,
    until: str | None = None,
    seed: int | None = None,
    skip_unreadable: bool = False,
    strict: bool = False,
    engine: str = "local",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    plugins: Sequence[str | Path] = (),
    out: str | Path | None = None,
    progress: Callable[[Event], None] | bool = True,
) -> Bench:
    """Sweep models x attacks x datasets x radii, keep one record per sample, and return the run.

    What is already in `out` is not computed again; a run that was interrupted continues, and more samples, attacks, models
    or radii add to it. A missing axis is filled from the suite `tiny`. A model or dataset that is not here, or a cell that
    fails, does not end the others: see `Bench.failures`; the same call tries them again.

    Args:
        models: specs, ``clip:ViT-B-32/openai``, or with a label, ``Ours=ucat:runs/x``.
        attacks: specs, ``pgd:steps=100``.
        datasets: specs, ``cifar10`` or ``folder:PATH``.
        eps: radii in units of pixels in [0, 1], as fractions ("1/255") or numbers.
        suite: a bundled sweep, or the path of a TOML file; what is given beside it replaces its part.
        limit: samples per dataset, the first of its one seeded, class-balanced order; None is all of them.
        until: such as ``"ece=0.02,accuracy=0.03"``: take more samples until every cell's 95 % interval has these
            half-widths (fractions), or the dataset is exhausted. `limit` is then what is begun with.
        seed: of attack noise and of the order of samples; default 0.
        skip_unreadable: leave out images that do not decode; without it their datasets' cells stay unfinished.
        strict: stop at the first thing that cannot be done.
        engine: "local", or "ray" for the Ray cluster this process can reach.
        device: "auto" (all GPUs, else the CPU), "cpu", "cuda" or "cuda:1".
        precision: of the attack's search: "fp32", "bf16", "fp16", or "auto"; predictions are always verified in fp32.
        batch_size: images per pass; default: found by trying. Does not change the result.
        workers: processes; default: one per GPU or CPU core.
        plugins: files of your own models, attacks, datasets ...; they are run.
        out: the run directory; default: the suite's, else ``runs/bench``.
        progress: True shows bars, or plain lines where there is no terminal; False shows nothing (the logger `robustcal` is
            told all the same); a function is called with every event of `robustcal.sweep.events`.

    Raises:
        UserError: anything the caller can mend, before anything is computed where possible; or nothing could be done.
    """
    from .progress import Display
    from .records.store import DamagedShard, Run
    from .report.frame import CSV_METRICS, write_cells_csv
    from .sweep.conduct import compute, prepare, take_up
    from .sweep.engine import pick_engine
    from .sweep.until import FIRST, parse_targets

    chosen = pick_engine(engine)
    targets = parse_targets(until, dict.fromkeys(CSV_METRICS)) if until is not None else {}
    limit = FIRST if targets and limit is None else limit
    job = job_of(suite, device, workers, plugins, out)
    request, notes = plan_request(models, attacks, datasets, eps, suite, limit, seed, job["plugins"])
    hardware = chosen.pick(job["device"], request.precision if precision == "auto" else precision)
    chosen.warm(hardware.device, job["workers"])
    request = replace(request, precision=hardware.precision, skip_unreadable=skip_unreadable)
    how = {"device": hardware.device, "batch_size": batch_size, "workers": job["workers"]}
    asked = request
    told = progress if callable(progress) else None if progress else lambda event: None
    with nullcontext(told) if told else Display(stream=sys.stderr) as tell:
        while True:
            plan = prepare(request, Path(job["out"]), strict)
            run = Run.create(job["out"], invocation(asked, plan, hardware.name))
            notes += take_up(plan, run)
            failures = compute(plan, run, request, chosen, tell, notes, strict, **how)
            finished = Bench(run.path, notes, failures)
            try:
                write_cells_csv(run, None if failures else finished.results)
            except DamagedShard as damage:  # found by its checksums; it is missing now
                notes.append(str(damage))
                continue
            more, lacking = _extension(finished, plan.accepted().cells, targets)
            if not more:
                finished.notes += lacking
                _warn(failures)
                return finished
            request = request.limited(more)


def _extension(finished: Bench, cells: Iterable[Cell], targets: Mapping[str, float]) -> tuple[dict[str, int], list[str]]:
    """How many samples each dataset needs for the targets, all models alike; and a line for what cannot be had."""
    from .records.store import Run
    from .report.evaluate import evaluate
    from .sweep.until import samples_needed

    more: dict[str, int] = {}
    lacking: list[str] = []
    if not targets:
        return more, lacking
    run = Run.open(finished.path)
    planned = {cell.id: cell for cell in cells if not run.missing(cell)}
    for row in evaluate([run], only=lambda source: source.cell.id in planned, alone=True).cells:
        if row.id not in planned:  # a worst case
            continue
        cell = planned[row.id]
        for name, target in targets.items():
            _, low, high = row.interval(name)
            width = (high - low) / 2
            wanted = min(max(samples_needed(cell.n, width, target), cell.n + 1), cell.dataset_size)
            if width > target and wanted > cell.n:
                more[cell.dataset] = max(wanted, more.get(cell.dataset, 0))
            elif width > target:
                lacking.append(f"{cell.title}: {name} is known to +-{width:.4f}, not {target:g}: there are no more samples")
            elif not width <= target:
                lacking.append(f"{cell.title}: {name} is no number here")
    return more, lacking


def _warn(failures: Sequence[Failure]) -> None:
    """A caller from Python who does not look at `Bench.failures` hears of them all the same."""
    if failures:
        import warnings

        text = "; ".join(map(str, failures[:3])) + (f" (and {len(failures) - 3} more)" if len(failures) > 3 else "")
        warnings.warn(f"not everything could be computed: {text}", RuntimeWarning, stacklevel=3)


def plan_request(
    models: Any, attacks: Any, datasets: Any, eps: Any, suite: str | Path | None, limit: int | None, seed: int | None,
    plugins: Sequence[str | Path],
) -> tuple[Request, list[str]]:  # fmt: skip
    """What a user asked for, complete, and a line that says which axes were filled from the default suite.

    Loads the plugin files.
    """
    from .sweep.declared import uses_radius
    from .sweep.plan import Request, Sweep

    paths = [Path(path).resolve() for path in plugins]
    for path in paths:
        registry.load_plugin_file(path)
    axes = {"models": models, "attacks": attacks, "datasets": datasets, "eps": eps}
    given: dict[str, Any] = {axis: _texts(values) for axis, values in axes.items()}
    given["limit"] = None if limit is None else whole(limit, "limit")
    filled: list[str] = []
    chosen = read_suite(DEFAULT if suite is None else suite)
    if suite is None and any(given[axis] for axis in LISTS):
        needed = uses_radius(given["attacks"] or chosen["attacks"])
        kept = [axis for axis in LISTS if not given[axis] and (needed or axis != "eps")]
        filled = [f"{axis} of the suite {DEFAULT}: {' '.join(map(str, chosen[axis]))}" for axis in kept]
        if given["datasets"]:  # the suite's number of samples is for its own datasets
            chosen = {key: value for key, value in chosen.items() if key != "limit"}
        elif limit is None:
            filled.append(f"{chosen['limit']} samples of each")
    seed = seed_of(chosen.get("seed", 0) if seed is None else seed)
    blocks, labels = take_labels(sweeps_of(chosen, given))
    sweeps = tuple(Sweep.of(**block) for block in blocks)
    note = [f"not given, so taken from the default: {'; '.join(filled)}"] if filled else []
    return Request(sweeps, seed, chosen.get("precision", "auto"), plugins=tuple(map(str, paths)), labels=labels), note


def _texts(values: Any) -> list[str]:
    if values is None:
        return []
    return [str(value) for value in ([values] if isinstance(values, (str, int, float, Fraction)) else values)]


def invocation(request: Request, plan: Plan, hardware: str) -> dict[str, Any]:
    """What run.json keeps of one call: the command, the canonical request, versions and the device."""
    from .cell import to_json

    by_hand = Path(sys.argv[0]).name in ("robustcal", "__main__.py")
    return {
        "command": shlex.join(["robustcal", *sys.argv[1:]]) if by_hand else "robustcal.bench(...)",
        "request": {**to_json(request), "plugins": [Path(path).name for path in request.plugins]},
        "specs": {f"{axis}s": plan.distinct(axis) for axis in ("model", "attack", "dataset")},
        "device": hardware,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that computes a number."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("robustcal", "torch", "torchvision", "open_clip_torch", "torchattacks", "pyautoattack", "numpy", "pandas"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def frame(*runs: str | Path, samples: bool = False) -> pandas.DataFrame:
    """The records of run directories as a pandas frame, several merged.

    Args:
        runs: run directories.
        samples: one row per sample of every cell; default: one row per cell, metrics with 95 % bounds and flags.

    Raises:
        UserError: a path that is no run, or has no finished cell.
    """
    from .records.store import Run
    from .report.frame import cells_frame, samples_frame

    return (samples_frame if samples else cells_frame)([Run.open(path) for path in runs])


def load_model(spec: str) -> Any:
    """The model a spec names. `.classifier(classnames, templates)` gives images in [0, 1] -> logits.

    Args:
        spec: such as ``tiny-clip``, ``clip:ViT-B-32/openai``, ``ucat:runs/x`` or ``tecoa:FILE:base=clip:ViT-B-32/openai``.

    Raises:
        UserError: an unknown name, a file that is missing, damaged or unsafe, or weights that do not fit.
    """
    return registry.models.build(spec)


def attack(
    spec: str, classifier: Any, images: torch.Tensor, labels: torch.Tensor, *,
    eps: str | float | Sequence[str | float], ids: Sequence[str] | None = None, seed: int = 0,
) -> torch.Tensor | dict[str | float, torch.Tensor]:  # fmt: skip
    """Run one attack and return its images, projected onto the ball and [0, 1] as in a sweep.

    Args:
        spec: such as ``pgd:steps=20:return=best``.
        classifier: a module in eval mode, images (N, 3, H, W) in [0, 1] -> logits (N, C); from `load_model`, or your own.
        images: (N, 3, H, W) in [0, 1].
        labels: (N,) class indices, or (N, C) multi-hot.
        eps: a radius such as ``"1/255"``; or several, which gives {radius: images} from the same random numbers.
        ids: one name per image, the key of its noise; default ``0``, ``1``, ...
        seed: of the noise.

    Raises:
        UserError: a spec or radius that is none, images outside [0, 1], labels that are no classes, training mode.
    """
    from .sweep.single import attack_once

    def at(radius: str | float) -> torch.Tensor:
        return attack_once(spec, classifier, images, labels, radius, ids, seed)

    return at(eps) if isinstance(eps, (str, int, float)) else {radius: at(radius) for radius in eps}
