"""What ``robustcal train`` prints: a bar or plain lines with time left, and a table of the held-out measurements."""

from __future__ import annotations

import difflib
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..progress.display import hours
from ..types import UserError

EVERY = 10  #: seconds between two plain lines
#: A measurement of the classifier: source (absent where there is one), clean or attacked images, accuracy or ECE.
MEASURED = re.compile(r"(?:(?P<source>.+)_)?(?P<images>clean|robust)_(?P<what>accuracy|ece)")
COLUMNS = {
    "clean_accuracy": "accuracy", "clean_ece": "ECE", "robust_accuracy": "attacked accuracy", "robust_ece": "attacked ECE",
}  # fmt: skip


#: What has an option of its own.
OWN = {
    "model", "dataset", "objective", "epochs", "steps", "out", "seed", "device", "precision", "log", "track", "plugin",
    "data_root",
}  # fmt: skip


def other_settings(texts: Sequence[str]) -> dict[str, str]:
    """The ``NAME=VALUE`` of ``--set``, for the recipe to type and check.

    Raises:
        UserError: what is no NAME=VALUE or no setting, is given twice, or has an option of its own.
    """
    from ..train.settings import TASKS

    known = {field.name for task in TASKS.values() for field in fields(task)} - {"name"}
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier() and value):
            raise UserError(f"--set '{text}' is not NAME=VALUE, like lr=8e-4")
        if name in OWN:
            raise UserError(f"--set {text}: that is an option of its own, --{name.replace('_', '-')} {value}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise UserError(f"--set {text}: no recipe has a setting '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        if name in found:
            raise UserError(f"--set gives {name} twice")
        found[name] = value
    return found


def print_json(event: Mapping[str, Any]) -> None:
    """One JSON object per event of the trainer: ``--log json``."""
    print(json.dumps(event), flush=True)


class TrainingProgress:
    """The events of the trainer for a person: on a terminal a bar, elsewhere at most one line every ten seconds."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.last = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        if kind == "start":
            self.started(event)
        elif kind == "step":
            self.stepped(event)
        elif kind == "evaluation":
            self.line(f"held out, step {event['step']}\n{held_out_table(event)}")
        elif kind == "recipe":
            self.line(f"recipe {event['name']}")
        elif kind in ("done", "bundle"):
            self.close()

    def line(self, text: str) -> None:
        """Text on stdout, above the bar."""
        if self.bar is not None:
            self.bar.clear()
        print(text, flush=True)

    def started(self, event: Mapping[str, Any]) -> None:
        """Say how much there is to do."""
        processes = f", {event['processes']} processes" if event["processes"] > 1 else ""
        going_on = f", going on after step {event['step']}" if event["step"] else ""
        self.line(f"{event['total']} steps{going_on}{processes}")
        if sys.stderr.isatty() and event["step"] < event["total"]:
            from tqdm import tqdm

            self.close()
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]"
            self.bar = tqdm(total=event["total"], initial=event["step"], unit="step", bar_format=form)

    def stepped(self, event: Mapping[str, Any]) -> None:
        """Loss, speed and time left."""
        left = f"about {hours(event['seconds_left'])} left"
        text = f"loss {event['loss']:.4g}, {event['images_per_second']:.0f} images/s, {left}"
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(event["step"] - self.bar.n)
        elif now - self.last > EVERY or event["step"] == event["total"]:
            self.last = now
            self.line(f"step {event['step']}/{event['total']}  {text}")

    def close(self) -> None:
        """Put the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def held_out_table(values: Mapping[str, Any]) -> str:
    """The measurements of one evaluation, aligned: a row for each source (or attribute family), shares in [0, 1]."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        if found := MEASURED.fullmatch(key):
            rows.setdefault(found["source"] or "source", {})[f"{found['images']}_{found['what']}"] = value
        elif key.endswith("_accuracy"):
            rows.setdefault(key.removesuffix("_accuracy"), {})["clean_accuracy"] = value
    columns = {key: max(len(title), 5) for key, title in COLUMNS.items() if any(key in row for row in rows.values())}
    width = max((len(name) for name in rows), default=0)
    lines = ["  " + " " * width + "".join(f"  {COLUMNS[key]:>{wide}}" for key, wide in columns.items())]
    for name, row in rows.items():
        cells = (f"{row[key]:.3f}" if key in row else "" for key in columns)
        aligned = "".join(f"  {cell:>{wide}}" for wide, cell in zip(columns.values(), cells, strict=True))
        lines.append(f"  {name:<{width}}{aligned}".rstrip())
    return "\n".join(lines)
