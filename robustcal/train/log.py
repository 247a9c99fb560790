"""The log of a training run: means since the last row, one CSV with a row per logged step, the plot drawn from it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .state import write_file


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
    from matplotlib.figure import Figure

    rows = read(log)
    fixed = {"step", "epoch", "lr", "loss", "gradient_norm", "images_per_second"}
    measured = [key for key in (rows[0] if rows else {}) if key.startswith("held_out_")]
    parts = [key for key in (rows[0] if rows else {}) if key not in fixed and key not in measured]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    losses, held_out, rate = figure.subplots(1, 3)
    for key in ["loss", *parts]:
        _line(losses, rows, key)
    for number, key in enumerate(measured):
        _line(held_out, rows, key, marker="o", color=f"C{number}", linestyle="-" if number < 10 else "--")
    _line(rate, rows, "lr")
    for axes, name in ((losses, "loss"), (held_out, "held-out source"), (rate, "learning rate")):
        axes.set(title=name, xlabel="step", xlim=(0, None), ylim=(0, None))
        if axes.lines:
            axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.savefig(picture, dpi=110)


def _line(axes: Any, rows: list[dict[str, str]], key: str, **style: Any) -> None:
    points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
    if points:
        axes.plot(*zip(*points), label=key.removeprefix("held_out_"), linewidth=1.2, **style)
