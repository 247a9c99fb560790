"""Training curves in TensorBoard or Weights & Biases: ``robustcal train ucat --track tensorboard``.

Both get what ``log.csv`` has, by the same names: the loss and its parts, learning rate, gradient norm, speed, and what was
measured on held-out source images. Their packages are no dependency of robustcal.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..types import UserError, reason_of
from .loop import Progress
from .settings import Recipe

#: Facts of an event that are no measurement.
PLACES = {"kind", "step", "total", "seconds_left"}


class Tracker(Protocol):
    """Where curves go. Opened when the first step is known."""

    def __init__(self, run: Path, settings: Recipe, step: int): ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step, by name."""

    def close(self, failed: bool) -> None:
        """Write out what is still in memory; `failed`: the training did not reach its end."""


class TensorBoard:
    """Event files in ``RUN/tensorboard``; of a run that goes on, curves continue at the checkpoint's step."""

    package, module, needs = "tensorboard", "torch.utils.tensorboard", "SummaryWriter"

    def __init__(self, run: Path, settings: Recipe, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One scalar for each number."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project ``robustcal`` under the run folder's name; ``WANDB_*`` variables say where and whose."""

    package, module, needs = "wandb", "wandb", "init"

    def __init__(self, run: Path, settings: Recipe, step: int):
        wandb: Any = importlib.import_module("wandb")
        # One id for each run folder, so that a training that goes on continues its curve.
        note = run / "wandb-id.txt"
        if not (step and note.is_file()):
            note.write_text(secrets.token_hex(4))
        facts = {"project": "robustcal", "name": run.name, "dir": str(run), "config": settings.dictionary()}
        try:
            self.run: Any = wandb.init(**facts, id=note.read_text(), resume="allow")
        except Exception as error:  # its network, its login; none of it is ours
            hint = "WANDB_MODE=offline keeps the curves here"
            raise UserError(f"tracker 'wandb' cannot start: {reason_of(error)}; {hint}") from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """All numbers at once."""
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Finish the run there, or say that it failed."""
        self.run.finish(exit_code=int(failed))


TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_tracker(name: str) -> None:
    """Raises `UserError` if there is no such tracker, or its package is not installed."""
    if name not in TRACKERS:
        raise UserError(f"tracker '{name}' is unknown; it is {' or '.join(TRACKERS)}")
    kind = TRACKERS[name]
    try:
        found = importlib.import_module(kind.module)
        if not hasattr(found, kind.needs):  # a folder of that name where the command is run
            raise ImportError
    except ImportError:
        raise UserError(f"tracker '{name}' needs a package that is not installed: pip install {kind.package}") from None


@contextmanager
def tracking(name: str | None, run: Path, settings: Recipe, report: Progress) -> Iterator[Progress]:
    """A `Progress` that tells `report` every event and a tracker the numbers; closed whatever happens to the training.

    Args:
        name: of `TRACKERS`; None: no tracker.
        run: the run's folder.
        settings: the recipe.
        report: gets all events as they are.
    """
    tracker: Tracker | None = None

    def told(event: dict[str, Any]) -> None:
        nonlocal tracker
        report(event)
        if name and event["kind"] == "start":
            tracker = TRACKERS[name](run, settings, event["step"])
        elif tracker and event["kind"] in ("step", "evaluation"):
            prefix = "held_out_" if event["kind"] == "evaluation" else ""
            tracker.log({prefix + key: value for key, value in event.items() if key not in PLACES}, event["step"])

    failed = True
    try:
        yield told
        failed = False
    finally:
        if tracker:
            tracker.close(failed)
