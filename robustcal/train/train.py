"""Run a training recipe: adversarial fine-tuning, contrastive pre-training, or a list of recipes."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .. import __version__
from ..clip.classifier import ClipModel
from ..exact import full_fp32
from ..registry import Plugin, datasets, models, objectives
from ..sweep.hardware import keep_memory
from ..types import UserError
from . import recipe as recipes
from .finetune import FineTuning, prompts
from .log import plot
from .loop import Loop, Progress
from .pretrain import Pretraining
from .settings import Pretrain, Recipe, Zoo
from .state import checkpoints, sha256, write_json, write_tensors
from .trackers import check_tracker, tracking
from .zoo import bundle

#: Published tau of the Dirichlet evidence times CLIP's logit scale.
PUBLISHED_PRODUCT = 0.07 * 100
SCALED = re.compile(r":tau=scaled(?=:|$)")


def train(
    recipe: str, *, model: str | None = None, dataset: str | Sequence[str] | None = None, objective: str | None = None,
    epochs: float | None = None, steps: int | None = None, out: str | Path | None = None, seed: int | None = None,
    device: str = "auto", precision: str = "auto", resume: bool = True, progress: Progress | None = None,
    track: str | None = None, **overrides: Any,
) -> Path:  # fmt: skip
    """Train by a recipe, to the end, and return the run's folder.

    The folder is a model spec: ``NAME:RUN``. A run already begun there is continued; a finished one is left as it is.
    Under ``torchrun`` every process calls this and works on its part of each batch.

    Args:
        recipe: name of a bundled recipe (``ucat``, ``tiny/ucat``) or path of a TOML file.
        model, dataset, objective: specs in place of the recipe's; several data sets for pre-training.
        epochs, steps: another length; `steps` wins.
        out: the run's folder; default ``runs/RECIPE-seed-SEED``.
        seed: of the order of images, of augmentation and of the inner attack; default: the recipe's.
        device: auto, cpu or cuda.
        precision: fp32, bf16, or auto: what the recipe says, else bf16 on a GPU that has it.
        resume: False discards what the folder holds.
        progress: called with one dictionary per event: its "kind" is start, step, evaluation, checkpoint or done.
        track: "tensorboard" or "wandb" gets the curves too, see `trackers`.
        overrides: any other setting of the recipe's task (`settings.FineTune`, `settings.Pretrain`), ``lr=8e-4``.

    Raises:
        UserError: bad recipe, setting or spec; a run with other settings, or a sweep, in `out`; a diverged loss.
    """
    given: dict[str, Any] = {"model": model, "objective": objective, "epochs": epochs, "steps": steps, "seed": seed}
    given["precision"] = None if precision == "auto" else precision
    if isinstance(steps, int) and steps < 1:
        raise UserError(f"steps is {steps}; it must be 1 or more, or left out for the length of the recipe")
    settings = recipes.load(recipe)
    if not isinstance(settings, Zoo):
        settings = recipes.load(recipe, **{**given, **_data(settings, dataset), **overrides})
    number = (seed or 0) if isinstance(settings, Zoo) else settings.seed
    run = Path(out) if out else Path("runs") / f"{settings.name.replace('/', '-')}-seed-{number}"
    if (run / "run.json").exists():
        raise UserError(f"'{run}' holds the records of a sweep; choose another --out")
    report = progress or (lambda event: None)
    if track:
        check_tracker(track)
    if isinstance(settings, Zoo):
        alone = {"model": model, "dataset": dataset, "objective": objective, "epochs": epochs}
        if refused := [name for name, value in alone.items() if value is not None]:
            listed = f"recipe '{settings.name}' is a list of recipes, which have each their own {refused[0]}"
            raise UserError(f"{listed}; train them one by one")
        for name in settings.recipes:  # what one of them does not have is told before the first is trained
            recipes.load(name, **overrides)
        shared = {"seed": seed, "steps": steps, "device": device, "precision": precision, "resume": resume, "track": track}
        return _zoo(settings, run, report, {**shared, **overrides})
    accelerator = _accelerator(device)
    compute = _compute_type(settings.precision, accelerator.device)
    if accelerator.is_main_process:
        _prepare(run, resume)
    accelerator.wait_for_everyone()
    if accelerator.device.type == "cpu":
        keep_memory()
    # denormals: before the threads that inherit the flag are started
    with full_fp32(), _denormals_flushed(accelerator.device), tracking(track, run, settings, report) as told:
        return _run(settings, run, accelerator, compute, told)


def _run(settings: Recipe, run: Path, accelerator: Accelerator, compute: torch.dtype, report: Progress) -> Path:
    """Take a fine-tuning or pre-training run to its end and export it."""
    task = _task(settings, accelerator, compute, run)
    if task.total == 0:
        length = f"steps={settings.steps}, epochs={settings.epochs:g}"
        raise UserError(f"recipe '{settings.name}' trains for no step ({length}); give --steps 1 or more")
    loop = Loop(task, settings, run, accelerator, report if accelerator.is_main_process else lambda event: None)
    if checkpoints(run):
        loop.restore(checkpoints(run)[-1])
    accelerator.wait_for_everyone()
    if loop.step < task.total or not (run / "card.json").is_file():
        measured = loop.fit()
        if accelerator.is_main_process:
            _finish(task, settings, run, measured, compute, accelerator.num_processes)
    report({"kind": "done", "path": str(run), **loop.measured})
    return run


def _zoo(settings: Zoo, run: Path, report: Progress, shared: dict[str, Any]) -> Path:
    """Run the recipes one after another, fine-tunes from the base trained first, and bundle the results."""
    base = Path()
    towers: dict[str, Path] = {}
    for name in settings.recipes:
        report({"kind": "recipe", "name": name})
        task = recipes.load(name).task
        if task == "zoo":
            raise UserError(f"recipe '{settings.name}' lists '{name}', itself a list of recipes; name those")
        is_base = task == "pretrain"
        model = f"clip:{base}" if base != Path() and not is_base else None
        path = train(name, model=model, out=run / Path(name).name, progress=report, **shared)
        if is_base:
            base = path
        elif name not in settings.results_only:
            towers[Path(name).name] = path
    if int(os.environ.get("RANK", "0")) == 0:
        bundle(base, towers, settings.claims, run / "bundle", settings.licence)
        report({"kind": "bundle", "path": str(run / "bundle")})
    return run


def _data(settings: Recipe, dataset: str | Sequence[str] | None) -> dict[str, Any]:
    """The setting that one or several data set specs replace."""
    specs = [dataset] if isinstance(dataset, str) else list(dataset or ())
    if isinstance(settings, Pretrain):
        return {"sources": specs, "shares": ()} if specs else {}
    if len(specs) > 1:
        raise UserError(f"recipe '{settings.name}' fine-tunes on one dataset, not {len(specs)}; give one --dataset")
    return {"dataset": specs[0]} if specs else {}


def _accelerator(device: str) -> Accelerator:
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device '{device}' is unknown; it is auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available here; use --device auto")
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())


@contextmanager
def _denormals_flushed(device: torch.device) -> Iterator[None]:
    """Small convolutional towers slow down severalfold late in training on a CPU, unless tiny numbers become zero.

    The flag is a thread's own, inherited by those it starts: it must be set before torch starts its pool.
    """
    torch.set_flush_denormal(device.type == "cpu")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _compute_type(precision: str, device: torch.device) -> torch.dtype:
    """The type in which the trained towers compute; weights, logits, losses and attacks stay float32."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _prepare(run: Path, resume: bool) -> None:
    import shutil

    try:
        run.mkdir(parents=True, exist_ok=True)
        if not resume:
            for old in ("checkpoints", "card.json", "log.csv"):
                path = run / old
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (run / ".writable").touch()
        (run / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write to '{run}': {error.strerror}") from None


def _task(settings: Recipe, accelerator: Accelerator, compute: torch.dtype, run: Path) -> FineTuning | Pretraining:
    parts = settings.accumulate * accelerator.num_processes
    if isinstance(settings, Pretrain):
        with torch.random.fork_rng(devices=[]):  # the initial weights are all that is drawn from a global generator
            torch.manual_seed(settings.seed)
            return Pretraining(settings, accelerator.device, run)
    if not SCALED.search(settings.objective):
        _objective(settings.objective)  # a mistake in it is told before data and weights are read
    source = datasets.build(settings.dataset)
    base = models.build(settings.model)
    if not isinstance(base, ClipModel):
        raise UserError(f"model '{settings.model}' cannot be trained; fine-tuning needs a CLIP model, and nothing around it")
    clip: Any = base.clip
    objective, params = _objective(scaled(settings.objective, float(clip.logit_scale.exp())))
    clip.to(accelerator.device, memory_format=torch.channels_last)
    classifier = base.classifier(source.classnames, prompts(source, settings))
    if "negative_template" in objective.meta:
        classifier.negative_head = base.text_head(source.classnames, [objective.meta["negative_template"]])
    return FineTuning(settings, classifier, source, objective, params, parts=parts, compute=compute)


def scaled(objective: str, logit_scale: float) -> str:
    """The objective spec with ``tau=scaled`` made a number: the published tau x logit scale, 0.07 x 100, over the base's."""
    return SCALED.sub(f":tau={PUBLISHED_PRODUCT / logit_scale:.4g}", objective)


def _objective(text: str) -> tuple[Plugin, dict[str, Any]]:
    """The objective of a spec and its parameters, which must lie where its `positive` and `not_negative` say."""
    objective, params = objectives.arguments(objectives.spec(text))
    for kind, least in (("positive", "above 0"), ("not_negative", "0 or more")):
        for key in objective.meta.get(kind, ()):
            value = params[key]
            if value is not None and (value < 0 or (kind == "positive" and value == 0)):
                raise UserError(f"objective '{text}': {key} is {value}; it must be {least}")
    return objective, params


def _finish(
    task: FineTuning | Pretraining, settings: Recipe, run: Path, measured: dict[str, float], compute: torch.dtype, processes: int
) -> None:  # fmt: skip
    """Export the trained weights beside a card that says how they came to be."""
    if isinstance(task, Pretraining):
        facts = {"method": "clip", **task.export(run)}
    else:
        write_tensors(run / "model.safetensors", task.trained.state_dict())
        facts = {"method": task.recipe.objective.partition(":")[0], "base": task.recipe.model}
        facts |= {"base_fingerprint": task.teacher.fingerprint, "sha256": sha256(run / "model.safetensors")}
    card = {
        "title": settings.title, **facts, "steps": task.total, "seed": settings.seed, "held_out": measured,
        "source_data": settings.source_data or None,
        "recipe": settings.dictionary(), "digest": settings.digest(),
        "command": " ".join(["robustcal", *sys.argv[1:]]),
        "processes": processes, "compute": str(compute).removeprefix("torch."),
        "versions": {"robustcal": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    write_json(run / "card.json", card)
    plot(run / "log.csv", run / "training.png", f"{settings.name}, seed {settings.seed}")
