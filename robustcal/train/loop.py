"""The training loop: optimiser, schedule, accumulation, processes, checkpoints, log. It knows no task.

A task brings a module whose forward returns named per-sample loss parts, a batch for every step and an evaluation;
everything that decides the weights is a pure function of (recipe, step), so a run killed at any moment continues to
the weights of an uninterrupted one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..sweep.hardware import cores
from ..types import UserError
from .divergence import Diverged, check_finite, check_loss, explained
from .log import Meter, TrainLog
from .schedule import learning_rate
from .settings import Recipe
from .state import keep_checkpoint, load_checkpoint, load_optimizer, optimizer_tensors, stage_checkpoint

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

    def inputs(self, batch: Any, step: int) -> tuple[Any, ...]:
        """The arguments of `module` for a batch read: moved to the device, attacked."""

    def evaluate(self) -> dict[str, float]:
        """Measurements on held-out source data, by name."""


def make_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay leaves out vectors and scalars (biases, norms, the logit scale).

    On a GPU one fused kernel updates all weights.
    """
    fused = all(parameter.is_cuda for parameter in parameters) or None
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=fused)


class Loop:
    """One training run: `fit` takes it to its end, from the newest checkpoint where there is one."""

    def __init__(self, task: Task, recipe: Recipe, run: Path, accelerator: Accelerator, progress: Progress):
        self.task, self.recipe, self.run, self.accelerator, self.progress = task, recipe, run, accelerator, progress
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(recipe, self.parameters)
        start = task.trained.state_dict() if recipe.ema else {}
        self.average = {key: value.detach().clone() for key, value in start.items()}
        self.step = 0
        self.first_losses: list[float] = []
        self.measured: dict[str, float] = {}
        self.staged: Path | None = None  # a checkpoint that counts once the loss of its weights is known to be good

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def parts(self) -> int:
        """Into how many parts a global batch is cut."""
        return int(self.recipe.accumulate * self.accelerator.num_processes)

    def fit(self) -> dict[str, float]:
        """Train to the end and return the last measurements.

        Raises:
            UserError: loss, gradient or weights not finite, or the loss explodes; names the last good checkpoint.
        """
        try:
            self._fit()
        except Diverged as what:
            if self.staged:
                shutil.rmtree(self.staged, ignore_errors=True)
            raise explained(what, self.recipe.name, min(self.step + 1, self.task.total), self.run) from None
        if self.average:
            self.task.trained.load_state_dict(self.average)
        self.accelerator.wait_for_everyone()
        return self.measured

    def _fit(self) -> None:
        accelerator, recipe, total = self.accelerator, self.recipe, self.task.total
        module = accelerator.prepare_model(self.task.module) if accelerator.num_processes > 1 else self.task.module
        batches = self._batches()
        log = TrainLog(self.run / "log.csv", self.step) if self.main else None
        meter, begun = Meter(accelerator), self.step
        self.progress({"kind": "start", "step": self.step, "total": total, "processes": accelerator.num_processes})
        while self.step < total:
            size = self.task.global_batch(self.step, self.parts)
            rate = learning_rate(self.step, total, recipe.warmup, recipe.lr)
            sums, norm = self._differentiate(module, batches, size)
            meter.add(sums, norm, size)
            self._update(rate)
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
                self._stage()
        if self.step > begun:  # the final weights are judged on the batch that would come next
            with self._weights_restored():
                self._differentiate(module, batches, self.task.global_batch(self.step, self.parts))

    def _stage(self) -> None:
        """Write a checkpoint of the present state, to be kept by the next good loss."""
        parts = {"model": self.task.trained.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        if self.average:
            parts["average"] = self.average
        check_finite(parts)
        card = {"recipe": self.recipe.dictionary(), "digest": self.recipe.digest(), "first_losses": self.first_losses}
        self.staged = stage_checkpoint(self.run, self.step, parts, {**card, "held_out": self.measured})

    def _keep(self) -> None:
        if self.staged:
            self.progress({"kind": "checkpoint", "step": self.step, "path": str(keep_checkpoint(self.staged))})
            self.staged = None

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
        """This process's parts of the batches still to come, and of one more."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        stream = _Stream(self.task, self.recipe.accumulate, rank, world)
        places = range(self.step * self.recipe.accumulate, (self.task.total + 1) * self.recipe.accumulate)
        workers = min(self.recipe.workers, cores() // world - 1)
        return iter(torch.utils.data.DataLoader(stream, batch_size=None, sampler=places, num_workers=max(workers, 0)))

    def _differentiate(self, module: Any, batches: Iterator[Any], size: int) -> tuple[dict[str, Tensor], Tensor]:
        """Loss and gradient of a step's batch: the summed loss parts of this process, and the gradient norm.

        Raises:
            Diverged: before the weights are touched, if they have gone wrong in any process.
        """
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
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm or math.inf, foreach=True)
        local = torch.stack([torch.stack(list(sums.values())).sum(), norm.to(next(iter(sums.values())).device)])
        loss_sum, norms = self.accelerator.reduce(local, "sum").tolist()
        check_loss(loss_sum / size, norms / self.accelerator.num_processes, self.first_losses, self.recipe.explode)
        self._keep()
        return sums, norm

    @torch.no_grad()
    def _update(self, rate: float) -> None:
        """One optimiser step. The moving average follows the weights; whole-number buffers are copied."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for key, value in self.task.trained.state_dict().items() if self.average else ():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - self.recipe.ema)
            else:
                self.average[key].copy_(value)

    def _evaluate(self, log: TrainLog | None) -> None:
        """Measure on held-out source data in the main process, with the averaged weights where there are any."""
        if self.main:
            with self._weights_restored():
                if self.average:
                    self.task.trained.load_state_dict(self.average)
                self.measured = self.task.evaluate()
            if log:
                log.add({"step": self.step, **{f"held_out_{key}": value for key, value in self.measured.items()}})
            self.progress({"kind": "evaluation", "step": self.step, **self.measured})
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _weights_restored(self) -> Iterator[None]:
        """Put weights and buffers back as they were before the block."""
        weights = {key: value.clone() for key, value in self.task.trained.state_dict().items()}
        yield
        self.task.trained.load_state_dict(weights)


class _Stream(torch.utils.data.Dataset[Any]):
    """A task's batches by position, so that loader workers can read ahead."""

    def __init__(self, task: Task, accumulate: int, rank: int, world: int):
        self.task, self.accumulate, self.rank, self.world = task, accumulate, rank, world

    def __getitem__(self, place: int) -> Any:
        step, micro = divmod(place, self.accumulate)
        return self.task.read(step, micro * self.world + self.rank, self.accumulate * self.world)
