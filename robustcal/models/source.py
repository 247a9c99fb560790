"""What the text after a model's name means: published weights, a folder or a checkpoint; the same for all cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip.weights import digest
from ..registry import models, normalise, parse_spec
from ..types import Spec, UserError
from . import folder as folders
from . import run_folder
from .open_clip import FORMS, HUB, LOCAL, split_tag

if TYPE_CHECKING:
    from ..clip.classifier import ClipModel

SUFFIXES = (".pt", ".pth", ".tar", ".safetensors", ".bin", ".ckpt")


def is_checkpoint(variant: str) -> bool:
    """Whether a variant names a checkpoint file or run folder (True) or something open_clip loads (False).

    Raises:
        UserError: if it is neither a path that exists nor a form open_clip understands.
    """
    if variant.startswith((HUB, LOCAL)):
        return False
    path = Path(variant).expanduser()
    if path.is_dir():
        return not folders.is_model(path)
    if path.is_file():
        return True
    if variant.startswith(("/", ".", "~")) or variant.lower().endswith(SUFFIXES) or variant.count("/") > 1:
        raise UserError(f"checkpoint '{variant}' does not exist; a variant is a path, {FORMS}")
    split_tag(variant)
    return False


def as_open_clip(variant: str) -> str:
    """A folder given as a bare path is a ``local-dir:``."""
    is_folder = not variant.startswith((HUB, LOCAL)) and Path(variant).expanduser().is_dir()
    return LOCAL + variant if is_folder else variant


def load(variant: str, *, base: str | None = None, activation: str | None = None) -> ClipModel:
    """The model a variant names, whatever card it stands on."""
    name, arguments = _plugin(variant, base, activation)
    model: ClipModel = models.get(name).make(**arguments)
    return model


def identity(variant: str, *, base: str | None = None, activation: str | None = None) -> str:
    """The identity of the model a variant names, without loading it."""
    name, arguments = _plugin(variant, base, activation)
    return str(models.get(name).meta["identity"](**arguments))


def _plugin(variant: str, base: str | None, activation: str | None) -> tuple[str, dict[str, str | None]]:
    """Which plugin loads a variant, and with what. Named, not imported: both of them look up their bases here."""
    if is_checkpoint(variant):
        return "checkpoint", {"variant": variant, "base": base, "activation": activation}
    if base is not None:
        raise UserError(f"'{variant}' is a whole model, so base={base} has no use; base= goes with a checkpoint")
    return "open-clip", {"variant": as_open_clip(variant), "activation": activation}


#: What a card says about a training besides its seed: two models that agree in all of it differ in the seed alone.
TRAINING = ("method", "objective", "steps", "source_data")
#: Settings of a recipe that are names or paths, or said elsewhere.
NO_SETTING = {"name", "title", "model", "seed", "recipes", "results_only"}
#: Settings in which a method's strength lies.
STRENGTH = {"objective", "eps"}


def training(*, variant: str | None = None, card: dict[str, Any] | None = None, **_: object) -> dict[str, Any] | None:
    """How a model was trained: its seed, and what must be equal in a model of another seed. None where no card says.

    A run folder also tells its base (the identity of its weights) and a hash of all settings; bundled cards do not.
    """
    facts = card or {}
    if variant is not None:
        folder = Path(variant).expanduser()
        if not (folder / run_folder.CARD).is_file():
            return None
        facts = _beside(folder) if folders.is_model(folder) else run_folder.read_card(folder)
    recipe = facts.get("recipe") or {}
    if "seed" not in facts:
        return None
    found = {"seed": facts["seed"]} | {key: facts.get(key, recipe.get(key)) for key in TRAINING}
    if recipe:
        settings = sorted((key, value) for key, value in recipe.items() if key not in NO_SETTING)
        base = facts.get("base")  # a pre-training has none
        found |= {"base": base and spec_identity(base), "settings": digest(repr(settings))}
        found |= {"pretraining": base and pretraining(base), "inner": inner_attack(recipe) if base else None}
        # One strength may be varied: a parameter of the objective, or the radius. `besides` is all that is neither.
        besides = digest(repr([pair for pair in settings if pair[0] not in STRENGTH]))
        found |= {"radius": recipe.get("eps"), "besides": besides} if base else {}
    return {key: value for key, value in found.items() if value is not None}


def _beside(folder: Path) -> dict[str, Any]:
    """The card of a pre-training, beside a whole model; {} where the file is somebody else's."""
    try:
        card = json.loads((folder / run_folder.CARD).read_text())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and isinstance(card.get("recipe"), dict) else {}


def pretraining(base: str) -> str | None:
    """What a chain of fine-tunes began with, as open_clip names it (``ViT-B-32/openai``); None where a file does not say."""
    variant = parse_spec(base).variant if is_spec(base) else base
    if variant is None:
        return base
    folder = Path(variant).expanduser()
    if is_checkpoint(variant):
        return pretraining(run_folder.read_card(folder)["base"]) if folder.is_dir() else None
    return None if variant.startswith(LOCAL) or folder.is_dir() else variant


def inner_attack(recipe: Mapping[str, Any]) -> str | None:
    """The attack a model was trained against, in words: ``2 steps of 1/255 within 1/255``."""
    if not {"eps", "attack_step", "attack_steps"} <= recipe.keys():
        return None
    steps = recipe["attack_steps"]
    return f"{steps} step{'' if steps == 1 else 's'} of {recipe['attack_step']} within {recipe['eps']}"


def is_spec(text: str) -> bool:
    """Whether a text names a registered model (``tiny-clip``, ``ucat:RUN``), rather than being a variant itself."""
    return normalise(parse_spec(text).name) in models.names()


def load_base(text: str) -> ClipModel:
    """The model a fine-tune started from: a spec (``clip:ViT-B-32/openai``) or a variant (``ViT-B-32/openai``)."""
    return models.build(text) if is_spec(text) else load(text)


def spec_identity(spec: str | Spec) -> str:
    """The identity of any model spec without loading it (weights hash, or the name of published weights).

    A plugin without `identity=` metadata is identified by its canonical spec and its own source.
    """
    if isinstance(spec, str) and not is_spec(spec):
        return identity(spec)
    spec = models.spec(spec)
    plugin, arguments = models.arguments(spec)
    function = plugin.meta.get("identity")
    return function(**arguments) if function else f"{spec}@{plugin.source_sha256 or ''}"
