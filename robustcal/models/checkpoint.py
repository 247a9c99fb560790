"""A checkpoint file or a training run folder, as a model: the fine-tuned image tower on the model it started from."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..registry import register
from ..types import UserError
from . import blueprint, open_clip, source
from .convert import convert, describe_tower

if TYPE_CHECKING:
    from torch import nn

    from ..clip.classifier import ClipModel

CARD, TOWER = "card.json", "model.safetensors"


def identity(
    *, variant: str | None = None, card: dict | None = None, base: str | None = None, activation: str | None = None,
    normalise: str | None = None, entry: str | None = None,
) -> str:  # fmt: skip
    """Hash of the weights file and of the model it goes on, without loading either."""
    if variant is not None and not source.is_checkpoint(variant):
        return source.identity(variant, base=base, activation=activation)
    file, facts = locate(variant, card)
    base = base or facts.get("base")
    under = "none" if base is None or base in open_clip.architectures() else source.spec_identity(base)
    return weights.digest(under, base, weights.sha256(file), activation, normalise, entry)


@register.model(identity=identity, training=source.training)
def checkpoint(
    *, variant: str | None = None, card: dict | None = None, base: str | None = None, activation: str | None = None,
    normalise: str | None = None, entry: str | None = None,
) -> ClipModel:  # fmt: skip
    """Load a fine-tuned model safely and strictly. Nothing in the file is ever executed.

    Args:
        variant: a `.safetensors` or torch checkpoint, or a run folder (`card.json` beside `model.safetensors`).
        base: the model it was fine-tuned from, a spec or ``ARCH/TAG``; a run folder knows it. For a checkpoint of a
            whole model the bare architecture (``ViT-B-32``) is enough, with `activation`.
        activation: "gelu" or "quickgelu": what the weights were trained with, where the base does not say.
        normalise: "openai", "imagenet" or "inception" pixel statistics; default: the base's.
        entry: which entry of the file holds the tensors; default: the usual ones.
    """
    if variant is not None and not source.is_checkpoint(variant):
        return source.load(variant, base=base, activation=activation)
    file, facts = locate(variant, card)
    base, activation = base or facts.get("base"), activation or facts.get("activation")
    payload = weights.load_payload(file)
    found = convert(payload, weights.tensors_of(payload, file, entry), str(file))
    if base is None:
        guess = describe_tower(found.state)
        hint = f"; its shapes are those of {guess}, so perhaps base={guess}/openai" if guess else ""
        raise UserError(f"'{file}' holds {found.origin} only: say what it was fine-tuned from with base=SPEC{hint}")
    if base in open_clip.architectures():
        model = _whole(file, found, base, activation)
    else:
        model = source.load_base(base)
        weights.check_activation(activation, model.clip, str(file))
        _fill(model.clip, found, str(file))
    if normalise is not None:
        model.mean, model.std = blueprint.statistics(normalise)
    model.fingerprint = weights.digest(model.fingerprint, weights.sha256(file), normalise)
    model.name = str(variant or file)
    return model


def locate(variant: str | None, card: dict | None = None) -> tuple[Path, dict[str, Any]]:
    """The weights file a variant or card names, and what is known about it (`base`, `activation`, `sha256`).

    Raises:
        UserError: if there is none, or if its sha256 is not the one its card states.
    """
    facts = {} if variant else dict(card or {})
    if not variant and "weights" not in facts:
        raise UserError("model 'checkpoint' needs a file or run folder: checkpoint:PATH")
    path = Path(variant).expanduser() if variant else card_weights(facts)
    if path.is_dir():
        path, facts = path / TOWER, read_card(path)
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    stated = facts.get("sha256")
    found = weights.sha256(path)
    if stated and found != stated:
        raise UserError(f"'{path}' has sha256 {found[:12]}..., its card states {stated[:12]}...; refused")
    return path, facts


def card_weights(card: dict[str, Any]) -> Path:
    """Where a card's weights file is: beside the card, else in the folder ``models`` of the data root.

    Raises:
        UserError: if it is in neither place, saying where to get it and where to put it.
    """
    here = Path(card.get("path", "")).parent / card["weights"]
    kept = Path(os.environ.get("ROBUSTCAL_DATA") or "~/.cache/robustcal").expanduser() / "models" / card["weights"]
    for path in (here, kept):
        if path.exists():
            return path
    name = Path(card.get("path", card["weights"])).stem
    get = f"fetch {card['url']} and put it" if "url" in card else "put the file"
    raise UserError(f"the weights of model '{name}' are not here: {get} at {kept}")


def read_card(folder: Path) -> dict[str, Any]:
    """The `card.json` of a training run. Raises `UserError` if the folder is not one, or has no weights yet."""
    try:
        card = json.loads((folder / CARD).read_text())
    except FileNotFoundError:
        known = f"a training run ({CARD}) nor a model folder ({blueprint.CONFIG})"
        raise UserError(f"'{folder}' is neither {known}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder / CARD}' is not readable JSON ({error})") from None
    if not isinstance(card, dict):
        raise UserError(f"'{folder / CARD}' is not a card")
    if not (folder / TOWER).is_file():
        raise UserError(f"training run '{folder}' has no {TOWER} yet; let it finish, or resume it")
    return card


def _whole(file: Path, found: Any, arch: str, activation: str | None) -> ClipModel:
    """A whole model from its own file, on a bare architecture: only the user can know the activation."""
    if not found.whole:
        raise UserError(f"'{file}' holds the image tower only; give its base as {arch}/TAG, such as {arch}/openai")
    plan = open_clip.from_tag(arch, None)
    if activation is None and plan.activation is None:
        raise UserError(
            f"'{file}' does not say which activation it was trained with; add activation=quickgelu (OpenAI weights "
            "and their fine-tunes) or activation=gelu (most others)"
        )
    config = {**plan.config, "quick_gelu": (plan.activation or activation) == "quickgelu"}
    return blueprint.build(replace(plan, config=config), found.state, activation)


def _fill(clip: nn.Module, found: Any, where: str) -> None:
    if found.whole:
        weights.load_into(clip, blueprint.as_open_clip(clip, found.state), where)
    else:
        weights.load_into(clip.visual, found.state, where)
