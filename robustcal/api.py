"""The Python face of robustcal: the same few verbs as the command line."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry
from .registry.suites import read_suite, sweeps_of, whole
from .types import UserError

if TYPE_CHECKING:
    import pandas
    import torch

ENGINES = ("local", "ray")


class Bench:
    """A finished sweep. `.cells` and `.samples` are pandas frames, `.path` is the run directory."""

    def __init__(self, path: Path, warnings: Sequence[str] = ()):
        self.path, self.warnings = Path(path), list(warnings)

    @cached_property
    def results(self) -> Any:
        """Every number of the run with its interval, computed once: what tables, figures and the page start from."""
        from .report.report import gather

        return gather([self.path])

    @property
    def cells(self) -> pandas.DataFrame:
        """One row per (model, dataset, attack, radius): metrics with 95 % bounds, and flags."""
        from .report.frame import cells_frame

        return cells_frame(self.results)

    @property
    def samples(self) -> pandas.DataFrame:
        """One row per sample of every cell."""
        from .records.store import Run
        from .report.frame import samples_frame

        return samples_frame([Run.open(self.path)])


def bench(
    models: Iterable[str] | str | None = None,
    attacks: Iterable[str] | str | None = None,
    datasets: Iterable[str] | str | None = None,
    eps: Iterable[str | float] | str | float | None = None,
    *,
    suite: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip_unreadable: bool = False,
    engine: str = "local",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    plugins: Sequence[str | Path] = (),
    out: str | Path = "runs/bench",
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> Bench:
    """Sweep models x attacks x datasets x radii, keep one record per sample, and return the run.

    What is already in `out` is not computed again; a run that was interrupted continues. Without models, attacks and
    datasets the suite `tiny` is run.

    Args:
        skip_unreadable: leave out images that do not decode; without it their datasets' cells stay unfinished.
        engine: "local", or "ray" for the Ray cluster this process can reach.
        progress: called with an event (a mapping) when the plan is made and after every finished shard.

    Raises:
        UserError: anything the caller can mend, before anything is computed where possible.
    """
    from .records.store import DamagedShard, Run
    from .sweep.plan import make_plan
    from .sweep.preflight import preflight, try_attacks

    engine = pick_engine(engine)
    report = progress or (lambda event: None)
    request, plugins = plan_request(models, attacks, datasets, eps, suite, limit, seed, plugins)
    wanted = request["precision"] if precision == "auto" else precision
    device, request["precision"], hardware = engine.pick(device, wanted)
    if skip_unreadable:
        request["skip_unreadable"] = True
    plan = make_plan(**request)
    try_attacks(plan)
    finished_before = (Path(out) / "run.json").is_file() and not engine.missing_shards(plan, Run.open(out))
    if not finished_before:
        preflight({cell["model"] for cell in plan.cells})
    run = Run.create(out, invocation(request, plan, plugins, hardware))
    again = {**request, "plugins": [str(path) for path in plugins]}
    how = {"device": device, "batch_size": batch_size, "workers": workers}
    warnings = [line for cell in plan.cells for line in take_up(run, cell)]
    run.drop_claims()
    while True:
        report({"event": "plan", "cells": len(plan.cells), "samples": plan.samples, "pending": engine.missing_shards(plan, run),
                "shards": sum(cell["shards"] for cell in plan.cells), "warnings": warnings})  # fmt: skip
        troubled = {}  # dataset -> a cell of it
        for event in engine.execute(plan, run, again, **how):
            report(event)
            if event["event"] == "unreadable":
                troubled[event["dataset"]] = event["cell"]
        finished = Bench(run.path, warnings)
        try:
            conclude(plan, run, finished, troubled)
            return finished
        except DamagedShard as damage:  # found by its checksums; it is missing now
            warnings.append(str(damage))


def pick_engine(name: str) -> Any:
    """The module that executes plans: ``missing_shards``, ``pick`` and ``execute``.

    Raises:
        UserError: unknown name, or an engine whose package is not installed.
    """
    import importlib

    if name not in ENGINES:
        raise UserError(f"unknown engine '{name}'; there are: {', '.join(ENGINES)}")
    return importlib.import_module(f".sweep.{name}", __package__)


def take_up(run: Any, cell: Mapping[str, Any]) -> list[str]:
    """Store what defines a cell, or check what it has: one line for each of its shards that has to be computed again."""
    run.add_cell(cell)
    return run.discard_damaged(cell)


def conclude(plan: Any, run: Any, finished: Bench, troubled: Mapping[str, str]) -> None:
    """Write cells.csv, of the cells that are finished.

    Args:
        troubled: a cell of each dataset that has images that do not decode.

    Raises:
        UserError: images of a dataset could not be read; how many, and which.
        DamagedShard: a checksum does not hold.
    """
    from .report.frame import write_cells_csv
    from .sweep.reading import explain

    write_cells_csv(run, None if troubled else finished.results)
    if troubled:
        sources = {spec: plan.sources[cell] for spec, cell in troubled.items()}
        raise UserError("; ".join(explain(spec, source.dataset, source.indices.tolist()) for spec, source in sources.items()))


def plan_request(
    models: Any, attacks: Any, datasets: Any, eps: Any, suite: Any, limit: int | None, seed: int | None, plugins: Sequence
) -> tuple[dict[str, Any], list[Path]]:
    """Arguments of `sweep.plan.make_plan` from what a user gave; loads the plugin files."""
    paths = [Path(path).resolve() for path in plugins]
    for path in paths:
        registry.load_plugin_file(path)
    given = {
        "models": _texts(models), "attacks": _texts(attacks), "datasets": _texts(datasets), "eps": _texts(eps),
        "limit": None if limit is None else whole(limit, "limit"),
    }  # fmt: skip
    if suite is None and not (given["models"] or given["attacks"] or given["datasets"]):
        suite = "tiny"
    chosen = read_suite(suite) if suite is not None else {"attacks": ["clean", "pgd"]}
    seed = whole(chosen.get("seed", 0) if seed is None else seed, "seed")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} cannot be used; a seed is a whole number from 0 to 2**63 - 1")
    return {"sweeps": sweeps_of(chosen, given), "seed": seed, "precision": chosen.get("precision", "auto")}, paths


def _texts(values: Any) -> list[str]:
    if values is None:
        return []
    return [str(value) for value in ([values] if isinstance(values, (str, int, float, Fraction)) else values)]


def invocation(request: Mapping[str, Any], plan: Any, plugins: Sequence[Path], hardware: str) -> dict[str, Any]:
    """What run.json keeps of one call: the command, the canonical request, versions and the device."""
    return {
        "command": " ".join(shlex.quote(word) for word in ["robustcal", *sys.argv[1:]])
        if Path(sys.argv[0]).name in ("robustcal", "cli.py", "__main__.py") else "robustcal.bench(...)",
        "request": {**request, "sweeps": [dict(sweep) for sweep in request["sweeps"]]},
        "specs": {axis: list(dict.fromkeys(cell[axis.rstrip("s")] for cell in plan.cells)) for axis in ("models", "attacks", "datasets")},
        "plugins": [str(path.name) for path in plugins],
        "device": hardware,
        "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of everything that computes a number."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("robustcal", "torch", "torchvision", "open_clip_torch", "torchattacks", "pyautoattack", "numpy", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def frame(*runs: str | Path, samples: bool = False) -> pandas.DataFrame:
    """The cells of run directories as a pandas frame, several merged; with `samples`, one row per sample instead."""
    from .records.store import Run
    from .report.frame import cells_frame, samples_frame

    return (samples_frame if samples else cells_frame)([Run.open(path) for path in runs])


def load_model(spec: str) -> Any:
    """The model a spec names. `.classifier(classnames, templates)` gives images in [0, 1] -> logits."""
    return registry.models.build(spec)


def attack(
    spec: str, classifier: Any, images: torch.Tensor, labels: torch.Tensor, *,
    eps: str | float | Sequence[str | float], ids: Sequence[str] | None = None, seed: int = 0,
) -> torch.Tensor | dict[str | float, torch.Tensor]:  # fmt: skip
    """Run one attack and return its images, projected onto the ball and [0, 1] as in a sweep.

    Args:
        spec: such as ``pgd:steps=20:return=best``.
        classifier: a module in eval mode, images (N, 3, H, W) in [0, 1] -> logits (N, C); from `load_model`, or your own.
        labels: (N,) class indices, or (N, C) multi-hot.
        eps: a radius such as ``"1/255"``; or several, which gives {radius: images} from the same random numbers.
        ids: one name per image, the key of its noise; default ``0``, ``1``, ...

    Raises:
        UserError: a spec or radius that is none, images outside [0, 1], labels that are no classes, training mode.
    """
    from .sweep.single import attack_once

    def at(radius: str | float) -> torch.Tensor:
        return attack_once(spec, classifier, images, labels, radius, ids, seed, lambda model, names: load_model(model).classifier(names))

    return {radius: at(radius) for radius in eps} if isinstance(eps, (list, tuple)) else at(eps)
