"""What a sweep file says: the suites that come along, and a user's own TOML, checked before anything is computed."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ..types import UserError
from . import families
from .specs import split_label

SUITES = Path(__file__).parent.parent / "suites"
#: What can have a label, and the family of its specs.
AXES = {"model": families.models, "attack": families.attacks, "dataset": families.datasets}
LISTS = ("models", "attacks", "datasets", "eps")


def _list_of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kinds) for item in value)


#: What an entry may be -> whether it is.
KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a list of texts": _list_of(str),
    "a list of radii": _list_of(str, int, float),
    "a table": lambda value: isinstance(value, dict),
    "tables, each under a line [[sweep]]": _list_of(dict),
    "one of auto, fp32, bf16, fp16": lambda value: value in ("auto", "fp32", "bf16", "fp16"),
}
#: The entries of a sweep, of ``[report]``, and of a suite: a sweep or several, and what else makes a whole job of it.
SWEEP = {**dict.fromkeys(LISTS, "a list of texts"), "eps": "a list of radii", "limit": "a whole number"}
REPORT = {
    "formats": "a list of texts", "layout": "a text", "metrics": "a list of texts", "compare": "a text", "versus": "a text",
    "bins": "a whole number", "rename": "a list of texts", "caption": "a text", "title": "a text",
}  # fmt: skip
SUITE = {
    **SWEEP, "sweep": "tables, each under a line [[sweep]]", "title": "a text", "description": "a text", "seed": "a whole number",
    "precision": "one of auto, fp32, bf16, fp16", "device": "a text", "workers": "a whole number", "plugins": "a list of texts",
    "out": "a text", "report": "a table",
}  # fmt: skip
#: Where a run goes of which nothing says where.
OUT = "runs/bench"


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
    _check(suite, SUITE, f"suite '{path}'")
    _check(suite.get("report", {}), REPORT, f"suite '{path}', [report]")
    for block in suite.get("sweep", []):
        _check(block, SWEEP, f"suite '{path}', [[sweep]]")
    return suite


def _check(found: Mapping[str, Any], kinds: Mapping[str, str], where: str) -> None:
    if unknown := sorted(set(found) - set(kinds)):
        raise UserError(f"{where} has unknown keys: {', '.join(unknown)}; there are: {', '.join(kinds)}")
    for key, value in found.items():
        if not KINDS[kinds[key]](value):
            raise UserError(f"{where}: {key} is not {kinds[key]}")


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


def seed_of(value: Any) -> int:
    """A seed as an int. Raises `UserError` where it cannot be used."""
    seed = whole(value, "seed")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} cannot be used; a seed is a whole number from 0 to 2**63 - 1")
    return seed


def whole(value: Any, name: str) -> int:
    """A whole number of any integer type, as an int. Raises `UserError` for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} {value!r} is not a whole number") from None
