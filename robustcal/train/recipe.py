"""Training recipes: TOML cards with every setting of a training run, checked and completed."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..registry import ROOT, convert, normalise
from ..types import UserError, parse_radius

FOLDER = ROOT / "recipes"
CHOICES = {"task": ("finetune", "pretrain", "zoo"), "optimizer": ("sgd", "adamw"), "precision": ("auto", "fp32", "bf16")}
#: Which numbers a setting may be.
RANGES = {
    "1 or more": (lambda value: value >= 1, (
        "batch", "accumulate", "log_every", "save_every", "image_size", "width", "layers", "embed", "text_width", "text_layers", "context",
    )),
    "0 or more": (lambda value: value >= 0, (
        "seed", "steps", "limit", "held_out", "workers", "lr", "weight_decay", "warmup", "clip_norm", "attack_steps", "eval_steps",
        "eval_every", "ramp", "attributes", "calibrate",
    )),
    "at least 0 and below 1": (lambda value: 0 <= value < 1, ("momentum", "beta2", "ema")),
    "between 0 and 1e6": (lambda value: 0 <= value <= 1e6, ("epochs",)),
    "above 0": (lambda value: value > 0, ("explode",)),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training run; the defaults are the common ones of the adversarial fine-tuning literature.

    Radii are texts such as ``1/255``. Lengths are `epochs` of the dataset, or `steps` of the optimiser where that
    is given. `batch` is the global batch of one optimiser step: all processes and accumulated parts together.
    """

    name: str
    title: str = ""
    task: str = "finetune"  # finetune | pretrain | zoo
    model: str = "clip"
    dataset: str = "world"
    objective: str = "tecoa"
    source_data: str = ""  # clean source samples nothing was trained on: where a temperature may be fitted
    template: str = ""  # one prompt with {} for the class name; empty: the dataset's own
    seed: int = 0
    # length and batch
    epochs: float = 10.0
    steps: int = 0
    batch: int = 256
    accumulate: int = 1
    limit: int = 0  # use only this many training samples (a seeded subset); 0: all
    held_out: int = 1000  # samples of the source set apart for evaluation; never trained on
    workers: int = 0
    # optimiser
    optimizer: str = "sgd"
    lr: float = 1e-5
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    warmup: int = 1000
    clip_norm: float = 0.0  # 0: no gradient clipping
    ema: float = 0.0  # decay of an exponential moving average of the weights; 0: off
    explode: float = 1e4  # stop when the loss exceeds this many times the largest of its first ten values
    # inner attack (linf PGD with a uniform random start)
    eps: str = "1/255"
    attack_step: str = "1/255"
    attack_steps: int = 2
    eval_steps: int = 10
    # numerics and records
    precision: str = "auto"  # fp32 | bf16 | auto: bf16 on a GPU that has it
    save_every: int = 500
    log_every: int = 20
    eval_every: int = 0  # 0: at the end only
    # contrastive pre-training
    image_size: int = 32
    width: int = 16
    layers: int = 1
    embed: int = 128
    text_width: int = 64
    text_layers: int = 2
    context: int = 16
    ramp: float = 0.45  # share of the steps over which the rendering grows to full difficulty
    attributes: float = 1.0  # weight of the cross-entropy over the prompts of one attribute family
    calibrate: int = 4000  # clean source images on which the logit scale is fitted at the end; 0: as learned
    # a list of recipes to run, in order
    recipes: tuple[str, ...] = ()
    results_only: tuple[str, ...] = ()  # which of them are not bundled, for the size of the package

    def dictionary(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def digest(self) -> str:
        """Content hash of the settings that decide the weights: a resumed run must have the same."""
        ignored = {
            "title", "save_every", "log_every", "eval_every", "workers", "eval_steps", "recipes", "results_only",
            "source_data",
        }  # fmt: skip
        content = {key: value for key, value in self.dictionary().items() if key not in ignored}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def names() -> list[str]:
    """Names of the bundled recipes: ``ucat``, ``tiny/ucat`` ..."""
    return sorted(normalise(str(path.relative_to(FOLDER).with_suffix(""))) for path in FOLDER.rglob("*.toml"))


def load(name: str, **overrides: Any) -> Recipe:
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


def complete(name: str, settings: Mapping[str, Any]) -> Recipe:
    """A checked recipe from plain settings; see `Recipe` for their names and defaults."""
    known = {field.name: field for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known or key == "name":
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
            raise UserError(f"recipe '{name}' has no setting '{key}'; {hint}")
        values[key] = _typed(name, known[key], value)
    recipe = replace(Recipe(name=name), **values)
    _check(recipe)
    return recipe


def _find(name: str) -> tuple[Path, str]:
    given = Path(name)
    if given.suffix == ".toml":
        if not given.is_file():
            raise UserError(f"recipe file '{name}' does not exist")
        return given, given.stem
    known = {key: FOLDER / f"{key}.toml" for key in names()}
    key = normalise(name)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise UserError(f"unknown recipe '{name}'; {hint}")
    return next(path for path in FOLDER.rglob("*.toml") if _key(path) == key), key


def _key(path: Path) -> str:
    return normalise(str(path.relative_to(FOLDER).with_suffix("")))


def _typed(name: str, field: Any, value: Any) -> Any:
    """The value in the type of the setting; whole numbers are accepted where a float is meant."""
    if field.type.startswith("tuple"):
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise UserError(f"recipe '{name}': {field.name}={value!r} is not a list of texts")
    if field.type != "str" and isinstance(value, str):
        import inspect

        kind = {"int": int, "float": float}[field.type]
        parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=kind())
        value = convert(value, parameter, f"{field.name}={value}")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if field.type == "str" and (number or isinstance(value, str)):
        return str(value)
    if field.type == "int" and number and isinstance(value, int) and abs(value) < 2**63:
        return value
    if field.type == "float" and number and abs(value) <= sys.float_info.max:
        return float(value)
    kinds = {"str": "a text", "int": "a whole number below 2**63", "float": "a finite number"}
    raise UserError(f"recipe '{name}': {field.name}={value!r} is not {kinds[field.type]}")


def _check(recipe: Recipe) -> None:
    for key, allowed in CHOICES.items():
        if (value := getattr(recipe, key)) not in allowed:
            raise UserError(f"recipe '{recipe.name}': {key} '{value}' is not one of {', '.join(allowed)}")
    for wanted, (holds, keys) in RANGES.items():
        for key in keys:
            if not holds(value := getattr(recipe, key)):
                raise UserError(f"recipe '{recipe.name}': {key} is {value}; it must be {wanted}")
    if recipe.task == "zoo" and not recipe.recipes:
        raise UserError(f"recipe '{recipe.name}' lists no recipes")
    for key in ("eps", "attack_step"):
        if parse_radius(value := getattr(recipe, key)) > 1:
            unit = "" if "/" in value else f"; for 8-bit units write {value}/255"
            raise UserError(f"recipe '{recipe.name}': {key} is {value}, larger than the whole pixel range [0, 1]{unit}")
