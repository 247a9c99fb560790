"""Training recipes: TOML cards of settings, read, checked and completed."""

from __future__ import annotations

import difflib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from ..registry import ROOT, convert, normalise
from ..types import UserError, parse_radius
from .settings import TASKS, FineTune, Pretrain, Zoo

FOLDER = ROOT / "recipes"
CHOICES = {"optimizer": ("sgd", "adamw"), "precision": ("auto", "fp32", "bf16")}
#: Which numbers a setting may be, one number or each of a list.
RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "1 or more": (lambda value: value >= 1, (
        "batch", "accumulate", "log_every", "save_every", "image_size", "width", "layers", "embed", "text_width",
        "text_layers",
    )),
    "3 or more": (lambda value: value >= 3, ("context",)),
    "0 or more": (lambda value: value >= 0, (
        "seed", "steps", "limit", "held_out", "workers", "lr", "weight_decay", "warmup", "clip_norm", "attack_steps",
        "eval_steps", "eval_every", "ramp", "classes", "contrastive", "calibrate", "pad", "vocabulary",
    )),
    "at least 0 and below 1": (lambda value: 0 <= value < 1, ("momentum", "beta2", "ema")),
    "between 0 and 1e6": (lambda value: 0 <= value <= 1e6, ("epochs",)),
    "above 0": (lambda value: value > 0, ("explode", "shares")),
    "above 0 and at most 1": (lambda value: 0 < value <= 1, ("crop_scale",)),
}  # fmt: skip


def names() -> list[str]:
    """Names of the bundled recipes: ``ucat``, ``tiny/ucat`` ..."""
    return sorted(normalise(str(path.relative_to(FOLDER).with_suffix(""))) for path in FOLDER.rglob("*.toml"))


def load(name: str, **overrides: Any) -> FineTune | Pretrain | Zoo:
    """Read a recipe by bundled name or path of a TOML file, with settings replaced by `overrides` (None: keep).

    Raises:
        UserError: unknown recipe or setting, malformed file or value.
    """
    path, key = _find(name)
    try:
        settings = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"recipe '{path}' is not valid TOML: {error}") from None
    given = {field: value for field, value in overrides.items() if value is not None}
    if "epochs" in given and "steps" not in given:
        settings.pop("steps", None)
    return complete(key, {**settings, **given})


def complete(name: str, settings: Mapping[str, Any]) -> FineTune | Pretrain | Zoo:
    """A checked recipe from plain settings, of the class its ``task`` names (default finetune).

    Raises:
        UserError: naming a setting that does not exist, belongs to another task, is missing or has no such value.
    """
    task = settings.get("task", FineTune.task)
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"recipe '{name}': task '{task}' is not one of {', '.join(TASKS)}")
    known = {field.name: field for field in fields(TASKS[task]) if field.name != "name"}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "task":
            continue
        if key not in known:
            raise UserError(f"recipe '{name}' has no setting '{key}'; {_hint(key, task, known)}")
        values[key] = _typed(name, known[key], value)
    for key, field in known.items():
        if field.default is MISSING and not values.get(key):
            raise UserError(f"recipe '{name}' lists no {key}")
    recipe = TASKS[task](name=name, **values)
    _check(recipe)
    return recipe


def _hint(key: str, task: str, known: Iterable[str]) -> str:
    """What to do about a setting that recipes of this task do not have."""
    others = [kind for kind, made in TASKS.items() if key != "name" and key in {field.name for field in fields(made)}]
    if others:
        return f"it belongs to {' and '.join(others)}, and this recipe's task is {task}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"


def _find(name: str) -> tuple[Path, str]:
    given = Path(name)
    if given.suffix == ".toml":
        if not given.is_file():
            raise UserError(f"recipe file '{name}' does not exist")
        return given, given.stem
    known = {_key(path): path for path in FOLDER.rglob("*.toml")}
    key = normalise(name)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known))}"
        raise UserError(f"unknown recipe '{name}'; {hint}")
    return known[key], key


def _key(path: Path) -> str:
    return normalise(str(path.relative_to(FOLDER).with_suffix("")))


KINDS = {
    "str": "a text", "int": "a whole number below 2**63", "float": "a finite number", "bool": "true or false",
}  # fmt: skip


def _typed(name: str, field: Field[Any], value: Any) -> Any:
    """The value in the type of the setting; whole numbers are accepted where a float is meant."""
    kind = str(field.type)
    if kind.startswith("tuple"):
        item = kind.removeprefix("tuple[").partition(",")[0]
        if isinstance(value, (list, tuple)):
            found = [_plain(item, one) for one in value]
            if None not in found:
                return tuple(found)
        raise UserError(f"recipe '{name}': {field.name}={value!r} is not a list, each {KINDS[item]}")
    if kind != "str" and isinstance(value, str):
        default = {"int": 0, "float": 0.0, "bool": False}[kind]
        parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default)
        value = convert(value, parameter, f"{field.name}={value}")
    if (plain := _plain(kind, value)) is None:
        raise UserError(f"recipe '{name}': {field.name}={value!r} is not {KINDS[kind]}")
    return plain


def _plain(kind: str, value: Any) -> str | int | float | bool | None:
    """The value as text, whole number, float or truth value; None if it is none."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "str":
        return str(value) if number or isinstance(value, str) else None
    if kind == "int":
        return value if number and isinstance(value, int) and abs(value) < 2**63 else None
    return float(value) if number and abs(value) <= sys.float_info.max else None


def _check(recipe: FineTune | Pretrain | Zoo) -> None:
    for key, allowed in CHOICES.items():
        if (value := getattr(recipe, key, allowed[0])) not in allowed:
            raise UserError(f"recipe '{recipe.name}': {key} '{value}' is not one of {', '.join(allowed)}")
    for wanted, (holds, keys) in RANGES.items():
        for key in keys:
            value = getattr(recipe, key, ())
            if not all(holds(one) for one in (value if isinstance(value, tuple) else (value,))):
                raise UserError(f"recipe '{recipe.name}': {key} is {value}; it must be {wanted}")
    for key in ("eps", "attack_step"):
        if parse_radius(value := getattr(recipe, key, "0")) > 1:
            unit = "" if "/" in value else f"; for 8-bit units write {value}/255"
            raise UserError(f"recipe '{recipe.name}': {key} is {value}, larger than the whole pixel range [0, 1]{unit}")
    if isinstance(recipe, Pretrain) and recipe.shares and len(recipe.shares) != len(recipe.sources):
        raise UserError(f"recipe '{recipe.name}': {len(recipe.shares)} shares for {len(recipe.sources)} sources")
    if isinstance(recipe, Pretrain) and recipe.contrastive == recipe.classes == 0:
        raise UserError(f"recipe '{recipe.name}': contrastive and classes are both 0; there is no loss to train on")
