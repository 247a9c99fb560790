"""When a training run has gone wrong, and the one line that tells its user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..types import UserError
from .state import checkpoints


class Diverged(UserError):
    """What went wrong, raised where it shows. `Loop.fit` turns it into the line of `explained`."""


def check_loss(loss: float, norm: float, first_losses: list[float], explode: float) -> None:
    """Judge the mean loss and the gradient norm of a step; the first ten good losses are noted in `first_losses`.

    Raises:
        Diverged: one of them is not finite, or the loss is more than `explode` times the largest of the first ones.
    """
    limit = max(explode * max(map(abs, first_losses), default=math.inf), explode)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(f"loss {loss:.4g}, gradient norm {norm:.4g}")
    if abs(loss) > limit:
        raise Diverged(f"loss {loss:.4g}, at first {max(map(abs, first_losses)):.4g}")
    if len(first_losses) < 10:
        first_losses.append(loss)


def check_finite(parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise `Diverged` if any of the named tensor sets of a checkpoint holds a number that is not finite."""
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise Diverged(f"{part} '{name}' is not finite")


def explained(what: Diverged, recipe: str, step: int, run: Path) -> UserError:
    """The error for the user: the step, what happened, the last good checkpoint, what to do."""
    saved = checkpoints(run)
    where = f"the last good checkpoint is '{saved[-1]}'" if saved else "there is no good checkpoint yet"
    advice = "lower lr or raise warmup in the recipe, and train into another --out"
    return UserError(f"training of '{recipe}' diverged at step {step} ({what}); {where}; {advice}")
