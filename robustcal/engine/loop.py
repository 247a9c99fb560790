"""The training loop: optimiser, schedule, accumulation, processes, checkpoints, log. It knows no task.

A task brings a module whose forward returns named per-sample loss parts, a batch for every step and an evaluation;
everything that decides the weights is a pure function of (recipe, step), so a run killed at any moment continues to
the weights of an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable, Iterator, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..types import UserError
from .recipe import Recipe
from .schedule import learning_rate
from .trainlog import TrainLog
from .trainstate import checkpoints, load_checkpoint, load_optimizer, optimizer_tensors, save_checkpoint

Progress = Callable[[dict[str, Any]], None]


class Task(Protocol):
    """What the loop needs to know about the thing it trains."""

    module: nn.Module  #: forward(*inputs) -> {part: (n,)}; its trainable parameters are trained
    trained: nn.Module  #: the part of `module` whose parameters and buffers are the result
    total: int  #: optimiser steps of the whole run

    def read(self, step: int, part: int, parts: int) -> Any:
        """Part `part` of `parts` of the global batch of one step: any picklable object."""

    def global_batch(self, step: int, parts: int) -> int:
        """Samples in the global batch of one step."""

    def inputs(self, batch: Any, step: int) -> tuple:
        """The arguments of `module` for a batch read: moved to the device, attacked."""

    def evaluate(self) -> dict[str, float]:
        """Measurements on held-out source data, by name."""


def make_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay leaves out vectors and scalars (biases, norms, the logit scale)."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2))


class Loop:
    """One training run: `fit` takes it to its end, from the newest checkpoint where there is one."""

    def __init__(self, task: Task, recipe: Recipe, run: Path, accelerator: Accelerator, progress: Progress):
        self.task, self.recipe, self.run, self.accelerator, self.progress = task, recipe, run, accelerator, progress
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(recipe, self.parameters)
        start = task.trained.state_dict() if recipe.ema else {}
        self.average = {key: value.detach().clone() for key, value in start.items()}
        self.step, self.first_losses, self.measured = 0, [], {}

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def parts(self) -> int:
        """Into how many parts a global batch is cut."""
        return self.recipe.accumulate * self.accelerator.num_processes

    def fit(self) -> dict[str, float]:
        """Train to the end and return the last measurements.

        Raises:
            UserError: loss or gradient not finite, or the loss explodes; names the last good checkpoint.
        """
        accelerator, recipe, total = self.accelerator, self.recipe, self.task.total
        module = accelerator.prepare_model(self.task.module) if accelerator.num_processes > 1 else self.task.module
        batches = self._batches()
        log = TrainLog(self.run / "log.csv", self.step) if self.main else None
        meter = Meter(accelerator)
        self.progress({"kind": "start", "step": self.step, "total": total, "processes": accelerator.num_processes})
        while self.step < total:
            size = self.task.global_batch(self.step, self.parts)
            rate = learning_rate(self.step, total, recipe.warmup, recipe.lr)
            meter.add(*self._optimise(module, batches, size, rate), size)
            self._follow()
            self.step += 1
            last = self.step == total
            if self.step % recipe.log_every == 0 or last:
                row = {"step": self.step, "lr": rate, **meter.row()}
                self.progress({"kind": "step", "total": total, "seconds_left": meter.left(total - self.step), **row})
                if log:
                    log.add(row)
            if last or (recipe.eval_every and self.step % recipe.eval_every == 0):
                self._evaluate(log)
            if self.main and (last or self.step % recipe.save_every == 0):
                self.progress({"kind": "checkpoint", "step": self.step, "path": str(self.save())})
        if self.average:
            self.task.trained.load_state_dict(self.average)
        accelerator.wait_for_everyone()
        return self.measured

    def save(self) -> Path:
        """Write a checkpoint of the present state."""
        parts = {"model": self.task.trained.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        if self.average:
            parts["average"] = self.average
        card = {"recipe": self.recipe.dictionary(), "digest": self.recipe.digest(), "first_losses": self.first_losses}
        return save_checkpoint(self.run, self.step, parts, {**card, "held_out": self.measured})

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            UserError: if it was made with other settings.
        """
        parts, card = load_checkpoint(folder)
        if card["digest"] != self.recipe.digest():
            ours, theirs = self.recipe.dictionary(), card["recipe"]
            changed = [f"{key} {theirs.get(key)!r} -> {ours[key]!r}" for key in ours if ours[key] != theirs.get(key)]
            what = ", ".join(changed)
            raise UserError(f"'{self.run}' holds a run with other settings ({what}); choose another --out")
        self.task.trained.load_state_dict(parts["model"])
        load_optimizer(self.optimizer, parts["optimizer"])
        self.average = parts.get("average", {})
        self.step, self.first_losses, self.measured = card["step"], card["first_losses"], card["held_out"]

    def _batches(self) -> Iterator[Any]:
        """This process's parts of the batches still to come."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        stream = _Stream(self.task, self.recipe.accumulate, rank, world)
        places = range(self.step * self.recipe.accumulate, self.task.total * self.recipe.accumulate)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(self.recipe.workers, cores // world - 1)
        return iter(torch.utils.data.DataLoader(stream, batch_size=None, sampler=places, num_workers=max(workers, 0)))

    def _optimise(self, module: nn.Module, batches: Iterator[Any], size: int, rate: float) -> tuple[dict, Tensor]:
        """One optimiser step; returns the summed loss parts of this process and the gradient norm."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for micro in range(self.recipe.accumulate):
            inputs = self.task.inputs(next(batches), self.step)
            waits = micro + 1 < self.recipe.accumulate and self.accelerator.num_processes > 1
            with module.no_sync() if waits else nullcontext():
                parts = module(*inputs)
                loss = torch.stack([part.sum() for part in parts.values()]).sum()
                # processes are averaged by the gradient exchange; the loss is the mean over the global batch
                (loss * (self.accelerator.num_processes / size)).backward()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + part.detach().sum()
        limit = self.recipe.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        self._check(sums, norm, size)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return sums, norm

    def _check(self, sums: dict[str, Tensor], norm: Tensor, size: int) -> None:
        """Stop before the weights are touched if the loss or its gradient has gone wrong in any process."""
        local = torch.stack([torch.stack(list(sums.values())).sum(), norm.to(next(iter(sums.values())).device)])
        loss, _ = values = self.accelerator.reduce(local, "sum").tolist()
        loss /= size
        limit = self.recipe.explode * max(map(abs, self.first_losses), default=math.inf)
        if all(map(math.isfinite, values)) and abs(loss) <= max(limit, self.recipe.explode):
            if len(self.first_losses) < 10:
                self.first_losses.append(loss)
            return
        saved = checkpoints(self.run)
        where = f"the last good checkpoint is '{saved[-1]}'" if saved else "no checkpoint was written yet"
        what = f"loss {loss:.4g}" + ("" if math.isfinite(values[1]) else f", gradient norm {values[1]}")
        place = f"training of '{self.recipe.name}' diverged at step {self.step + 1}"
        raise UserError(f"{place} ({what}); {where}; lower lr")

    @torch.no_grad()
    def _follow(self) -> None:
        """Update the moving average of the weights; whole-number buffers are copied."""
        for key, value in self.task.trained.state_dict().items() if self.average else ():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - self.recipe.ema)
            else:
                self.average[key].copy_(value)

    def _evaluate(self, log: TrainLog | None) -> None:
        """Measure on held-out source data in the main process, with the averaged weights where there are any."""
        if self.main:
            trained = self.task.trained
            weights = {key: value.clone() for key, value in trained.state_dict().items()}
            trained.load_state_dict(self.average or weights)
            self.measured = self.task.evaluate()
            trained.load_state_dict(weights)
            log.add({"step": self.step, **{f"held_out_{key}": value for key, value in self.measured.items()}})
            self.progress({"kind": "evaluation", "step": self.step, **self.measured})
        self.accelerator.wait_for_everyone()


class Meter:
    """Means of the loss parts, and speed, since the last row."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.began, self.steps_timed = accelerator, time.monotonic(), 0
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.samples, self.norms, self.steps, self.since = 0, 0.0, 0, time.monotonic()

    def add(self, parts: dict[str, Tensor], norm: Tensor, size: int) -> None:
        """Count one step: this process's summed parts, the gradient norm, the global batch size."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.samples, self.norms, self.steps = self.samples + size, self.norms + norm, self.steps + 1
        self.steps_timed += 1

    def row(self) -> dict[str, float]:
        """The means over all processes, and start anew."""
        values = self.accelerator.reduce(torch.stack(list(self.sums.values())), "sum") / self.samples
        seconds = max(time.monotonic() - self.since, 1e-9)
        means = dict(zip(self.sums, values.tolist()))
        row = {"loss": sum(means.values()), **means, "gradient_norm": float(self.norms / self.steps)}
        row["images_per_second"] = self.samples / seconds
        self._clear()
        return row

    def left(self, steps: int) -> float:
        """Seconds that many more steps will take at the speed so far."""
        return steps * (time.monotonic() - self.began) / max(self.steps_timed, 1)


class _Stream(torch.utils.data.Dataset):
    """A task's batches by position, so that loader workers can read ahead."""

    def __init__(self, task: Task, accumulate: int, rank: int, world: int):
        self.task, self.accumulate, self.rank, self.world = task, accumulate, rank, world

    def __getitem__(self, place: int) -> Any:
        step, micro = divmod(place, self.accumulate)
        return self.task.read(step, micro * self.world + self.rank, self.accumulate * self.world)
