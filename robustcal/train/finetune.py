"""Adversarial fine-tuning: the image tower of a zero-shot classifier, under any objective, as a task of the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.classifier import ClipClassifier
from ..noise import Noise
from ..registry import Plugin
from ..types import Batch, Dataset, Templates, UserError
from .heldout import measure
from .inner import InnerAttack
from .schedule import balanced_order, batch_indices, held_out_split, steps_per_epoch
from .settings import FineTune


class FineTuning:
    """Student image tower trained, text head and teacher frozen, batch-norm statistics frozen.

    Args:
        base: the original model's classifier on the training classes; it becomes the frozen teacher.
        dataset: the source, with an indexable training split.
        objective, params: the plugin and the parameters of its spec.
    """

    def __init__(
        self, recipe: FineTune, base: ClipClassifier, dataset: Dataset, objective: Plugin, params: dict[str, Any], *,
        parts: int = 1, compute: torch.dtype = torch.float32,
    ):  # fmt: skip
        if dataset.task != "single":
            raise UserError(f"dataset '{dataset.name}' is multi-label; fine-tuning needs one class per image")
        self.recipe, self.dataset, self.parts = recipe, dataset, parts
        self.device = next(base.buffers()).device
        student = base.replica()
        student.visual.requires_grad_(True)
        for classifier in (student, base):
            compute_in(classifier, compute)
        self.student, self.teacher = student, base
        self.module: nn.Module = _Step(student, base, objective, params)
        self.trained = student.get_submodule("visual")
        self.attack = InnerAttack.read(recipe.eps, recipe.attack_step, recipe.attack_steps)
        self.inner = _inner_loss(objective, params)
        self.train, self.held_out = _positions(dataset, recipe)
        self.total = recipe.steps or round(recipe.epochs * steps_per_epoch(len(self.train), recipe.batch, parts))

    def _global(self, step: int, parts: int) -> np.ndarray:
        rows: np.ndarray = self.train[batch_indices(step, len(self.train), self.recipe.batch, self.recipe.seed, parts)]
        return rows

    def read(self, step: int, part: int, parts: int) -> Batch:
        return self.dataset.read(self._global(step, parts)[part::parts].tolist())

    def global_batch(self, step: int, parts: int) -> int:
        return len(self._global(step, parts))

    def inputs(self, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images, adversarial images and labels, on the device."""
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        noise = Noise(self.recipe.seed, [f"{step}/{sample}" for sample in batch.ids], self.device)
        loss = self.inner(self.student, self.teacher, images, labels)
        return images, self.attack(loss, images, noise), labels

    def evaluate(self) -> dict[str, float]:
        """Clean and robust accuracy and ECE on the held-out part of the source; the attack is PGD on the label."""
        recipe = self.recipe
        attack = InnerAttack.read(recipe.eps, recipe.attack_step, recipe.eval_steps)
        return measure(self.student, self.dataset, self.held_out.tolist(), attack, recipe.batch, recipe.seed)


class _Step(nn.Module):
    """The objective as a module, so that distributed training sees one forward per backward."""

    def __init__(self, student: ClipClassifier, teacher: ClipClassifier, objective: Plugin, params: dict[str, Any]):
        super().__init__()
        self.student = student
        self.frozen = (teacher,)  # a tuple, so that the teacher is no submodule: it is neither trained nor exchanged
        self.objective, self.params = objective, params

    def forward(self, clean: Tensor, adversarial: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts = self.objective.make(self.student, self.frozen[0], clean, adversarial, labels, **self.params)
        return check_parts(self.objective.name, parts, len(labels))


def check_parts(objective: str, parts: Any, count: int) -> dict[str, Tensor]:
    """`parts` itself, if it is what an objective returns. The loop sums it: a mean would train at 1/n of the strength.

    Raises:
        UserError: it is no dictionary of names and tensors of `count` numbers, or is empty.
    """
    checked: dict[str, Tensor] = parts
    wrong = None
    if not isinstance(parts, dict) or not parts:
        wrong = str(parts) if parts is None or parts == {} else f"a {type(parts).__name__}"
    for name, part in parts.items() if wrong is None else ():
        if not isinstance(name, str) or not isinstance(part, Tensor):
            wrong = f"a {type(part).__name__} under the name {name!r}"
        elif part.shape != (count,):
            wrong = f"'{name}' of shape {tuple(part.shape)} for {count} images"
    if wrong:
        wanted = "a dictionary of names and (n,) tensors, one number per image (reduction=\"none\", no mean)"
        raise UserError(f"objective '{objective}' returned {wrong}; it must return {wanted}")
    return checked


def compute_in(classifier: ClipClassifier, dtype: torch.dtype) -> None:
    """Let the image tower compute in `dtype` (autocast) and return float32: logits, losses, attacks stay float32."""
    if dtype == torch.float32:
        return

    def rounded(method: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, dtype):
                return method(images).float()

        return call

    for name in ("embed", "tokens"):
        setattr(classifier, name, rounded(getattr(classifier, name)))


def _inner_loss(objective: Plugin, params: dict[str, Any]) -> Callable[..., Callable[[Tensor], Tensor]]:
    """(student, teacher, clean, labels) -> the per-sample loss that the inner attack maximises."""
    inner = objective.meta.get("inner")
    if inner is None:
        return lambda student, teacher, clean, labels: _label_loss(student, labels)
    named = inspect.signature(inner).parameters
    chosen = {key: value for key, value in params.items() if key in named}
    return lambda student, teacher, clean, labels: inner(student, teacher, clean, labels, **chosen)


def _label_loss(student: ClipClassifier, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: F.cross_entropy(student(images), labels, reduction="none")


def _positions(dataset: Dataset, recipe: FineTune) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out positions in the source; `limit` takes a seeded part of the training ones."""
    labels = np.asarray(dataset.labels)
    train, held_out = held_out_split(labels, recipe.held_out, recipe.seed)
    if recipe.limit and recipe.limit < len(train):
        train = np.sort(train[balanced_order(labels[train], recipe.seed)[: recipe.limit]])
    if len(train) == 0:
        raise UserError(f"dataset '{dataset.name}' has no training samples; it holds {len(labels)} in all")
    return train, held_out


def prompts(dataset: Dataset, recipe: FineTune) -> Templates:
    """The recipe's prompt, or the dataset's own."""
    if recipe.template and "{}" not in recipe.template:
        raise UserError(f"recipe '{recipe.name}': template '{recipe.template}' has no {{}} for the class name")
    return (recipe.template,) if recipe.template else tuple(dataset.templates)
