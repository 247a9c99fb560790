"""What a sweep file says: the suites that come along, and a user's own TOML, checked before anything is computed."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ..types import UserError
from . import families
from .specs import split_label

SUITES = Path(__file__).parent.parent / "suites"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
#: What can have a label, and the family of its specs.
AXES = {"model": families.models, "attack": families.attacks, "dataset": families.datasets}
LISTS = ("models", "attacks", "datasets", "eps")
#: What else makes a whole job of a suite -> the type of its value; and of what stands under ``[report]``.
JOB: dict[str, type] = {"device": str, "workers": int, "plugins": list, "out": str, "report": dict}
REPORT: dict[str, type] = {
    "formats": list, "layout": str, "metrics": list, "compare": str, "versus": str, "bins": int, "rename": list, "caption": str,
    "title": str,
}  # fmt: skip
#: Where a run goes of which nothing says where.
OUT = "runs/bench"
KINDS = {str: "a text", int: "a whole number", list: "a list of texts", dict: "a table"}


def read_suite(name: str | Path) -> dict[str, Any]:
    """A suite: the sweep of a bundled name or of a TOML file.

    Raises:
        UserError: unknown name, missing file, not TOML, or a key a suite does not have.
    """
    path = Path(name) if str(name).endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in SUITES.glob("*.toml"))
        raise UserError(f"unknown suite '{name}'; there are: {', '.join(known)}, or give a FILE.toml")
    try:
        suite = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"suite '{path}' is not valid TOML: {error}") from None
    unknown = set(suite) - {*LISTS, *JOB, "limit", "title", "description", "sweep", "seed", "precision"}
    if unknown:
        raise UserError(f"suite '{path}' has unknown keys: {', '.join(sorted(unknown))}")
    _check_job(suite, JOB, f"suite '{path}'")
    _check_job(suite.get("report", {}), REPORT, f"suite '{path}', [report]")
    if unknown := set(suite.get("report", {})) - set(REPORT):
        names = ", ".join(sorted(unknown))
        raise UserError(f"suite '{path}', [report] has unknown keys: {names}; there are: {', '.join(REPORT)}")
    blocks = suite.get("sweep", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UserError(f"suite '{path}': sweeps are tables, each under a line [[sweep]]")
    for block in (suite, *blocks):
        for key in block:
            if not _suits(key, block[key]):
                wanted = {"precision": f"one of {', '.join(PRECISIONS)}", **dict.fromkeys(LISTS, "a list of texts")}
                raise UserError(f"suite '{path}': {key} is not {wanted.get(key, 'a whole number')}")
    return suite


def _check_job(found: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    for key, kind in kinds.items():
        value: Any = found.get(key, kind())
        texts = not isinstance(value, list) or all(isinstance(item, str) for item in value)
        if not isinstance(value, kind) or isinstance(value, bool) or not texts:
            raise UserError(f"{where}: {key} is not {KINDS[kind]}")


def job_of(
    suite: str | Path | None, device: str = "auto", workers: int | None = None, plugins: Sequence[str | Path] = (),
    out: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Device, workers, plugins, run directory and report options: those given, else those of the suite, else the usual ones.

    Plugins are those of both. Paths are relative to the working directory, as everywhere.
    """
    said = {} if suite is None else read_suite(suite)
    return {
        "device": said.get("device", device) if device == "auto" else device,
        "workers": said.get("workers") if workers is None else workers,
        "plugins": list(dict.fromkeys(map(str, (*said.get("plugins", ()), *plugins)))),
        "out": said.get("out", OUT) if out is None else out,
        "report": said.get("report", {}),
    }


def _suits(key: str, value: Any) -> bool:
    """Whether a suite's entry has the type its key asks for."""
    if key in LISTS:
        return isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value)
    return value in PRECISIONS if key == "precision" else key not in ("limit", "seed") or isinstance(value, int)


def sweeps_of(suite: Mapping[str, Any], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sweeps of a suite, each a full product; what the caller gives replaces what the suite says.

    Raises:
        UserError: a radius is an empty text.
    """
    base = {key: suite.get(key) for key in (*LISTS, "limit")}
    blocks = [{**base, **block} for block in suite.get("sweep", [{}])]
    sweeps = [{**block, **{key: value for key, value in given.items() if value not in (None, [])}} for block in blocks]
    for sweep in sweeps:
        if not all(str(radius).strip(" ,") for radius in sweep["eps"] or ()):
            raise UserError("--eps is empty; give radii such as 1/255, or leave it out")
    return sweeps


def take_labels(sweeps: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """The sweeps without their labels (``LABEL=SPEC``), and what these are: axis -> canonical spec -> label.

    Raises:
        UserError: an empty label, one for two specs, or two for one.
    """
    bare = [dict(sweep) for sweep in sweeps]
    labels: dict[str, dict[str, str]] = {axis: {} for axis in AXES}
    for axis, sweep in product(AXES, bare):
        values = [str(value) for value in sweep.get(f"{axis}s") or ()]
        pairs = [split_label(piece) for value in values for piece in value.split(",") if piece.strip()]
        for label, text in pairs:
            if label:
                spec = str(AXES[axis].spec(text))
                if labels[axis].setdefault(spec, label) != label:
                    raise UserError(f"{axis} '{text}' has two labels, '{labels[axis][spec]}' and '{label}'")
                if [*labels[axis].values()].count(label) > 1:
                    raise UserError(f"two {axis}s have the label '{label}'; give each its own")
        sweep[f"{axis}s"] = [text for _, text in pairs]
    return bare, {axis: found for axis, found in labels.items() if found}


def whole(value: Any, name: str) -> int:
    """A whole number of any integer type, as an int. Raises `UserError` for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} {value!r} is not a whole number") from None
