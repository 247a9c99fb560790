"""The log of a training run: means since the last row, one CSV with a row per logged step, the plot drawn from it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .state import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TrainLog:
    """Rows of numbers keyed by step, kept in memory and in ``log.csv``; a resumed run drops the rows it will redo."""

    def __init__(self, path: Path, until: int):
        self.path = path
        self.rows = [row for row in read(path) if int(row["step"]) <= until] if path.is_file() else []
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; a row of the step already there is completed instead."""
        text = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items()}
        if self.rows and self.rows[-1]["step"] == text["step"]:
            self.rows[-1].update(text)
        else:
            self.rows.append(text)
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row)) or ["step"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_file(self.path, text.getvalue().encode())


class Meter:
    """Means of the loss parts, and speed, since the last row."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.began, self.steps_timed = accelerator, time.monotonic(), 0
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.samples, self.steps, self.since = 0, 0, time.monotonic()
        self.norms: Tensor | float = 0.0

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


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a log."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def plot(log: Path, picture: Path, title: str) -> None:
    """Draw loss parts, held-out clean and robust accuracy and the learning rate against the step."""
    from ..report.style import styled

    with styled():
        log_figure(read(log), title).savefig(picture, dpi=110)


def log_figure(rows: Sequence[Mapping[str, str]], title: str) -> Figure:
    """The figure of a log's rows: three panels."""
    from ..report.lettering import TITLE_SIZE, drawable, legend, wrapped
    from ..report.style import look, panels

    fixed = {"step", "epoch", "lr", "loss", "gradient_norm", "images_per_second"}
    names = list(rows[0]) if rows else []
    held_out = [name for name in names if name.startswith("held_out_")]
    parts = [name for name in names if name not in fixed and name not in held_out]
    figure, axes = panels(3, 1, 3.6, 2.8)
    looks = count()
    for ax, head, keys in zip(axes, ("loss", "held-out source", "learning rate"), (["loss", *parts], held_out, ["lr"])):
        for key, i in zip(keys, looks):
            points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
            if points:
                label = drawable(key.replace("held_out_", "held out: "))
                ax.plot(*zip(*points), label=label, markevery=(0.03 * (i % 5), 0.15), markersize=4, **look(i))
        ax.set(title=head, xlabel="step", xlim=(0, None), ylim=(0, None))
    legend(figure, axes)
    figure.suptitle(wrapped(drawable(title), 10.4, TITLE_SIZE), fontsize=TITLE_SIZE)
    return figure
