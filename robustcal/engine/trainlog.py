"""The log of a training run: one CSV with a row per logged step, and the plot drawn from it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Mapping

from .trainstate import write_file


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
