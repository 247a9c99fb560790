"""A checkpoint file or a training run folder, as a model: the fine-tuned image tower on the model it started from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..clip.untrusted import load_payload
from ..registry import register
from ..types import UserError
from . import blueprint, mend, open_clip, source
from .convert import Converted, convert
from .recognise import architecture
from .run_folder import locate

if TYPE_CHECKING:

    from ..clip.classifier import ClipModel

def identity(
    *, variant: str | None = None, card: dict[str, Any] | None = None, base: str | None = None, activation: str | None = None,
    normalise: str | None = None, entry: str | None = None, prefix: str | None = None,
) -> str:  # fmt: skip
    """Hash of the weights file and of the model it goes on, without loading either."""
    if variant is not None and not source.is_checkpoint(variant):
        return source.identity(variant, base=base, activation=activation)
    named = (entry,) if prefix is None else (entry, prefix)
    file, facts = locate(variant, card)
    base = base or facts.get("base")
    under = "none" if base is None or base in open_clip.architectures() else source.spec_identity(base)
    return weights.digest(under, base, weights.sha256(file), activation, normalise, *named)


@register.model(identity=identity, training=source.training)
def checkpoint(
    *, variant: str | None = None, card: dict[str, Any] | None = None, base: str | None = None, activation: str | None = None,
    normalise: str | None = None, entry: str | None = None, prefix: str | None = None,
) -> ClipModel:  # fmt: skip
    """Load a fine-tuned model safely and strictly. Nothing in the file is ever executed.

    Args:
        variant: a `.safetensors` or torch checkpoint, or a run folder (`card.json` beside `model.safetensors`).
        base: the model it was fine-tuned from, a spec or ``ARCH/TAG``; a run folder knows it. For a checkpoint of a
            whole model the bare architecture (``ViT-B-32``) is enough, with `activation`.
        activation: "gelu" or "quickgelu": what the weights were trained with, where the base does not say.
        normalise: "openai", "imagenet" or "inception" pixel statistics; default: the base's.
        entry: which entry of the file holds the tensors (``state_dict_ema``, ``ema.model``); default: the usual ones.
        prefix: what stands before the tensors' names where it is not the same for all, such as ``student.``
    """
    if variant is not None and not source.is_checkpoint(variant):
        return source.load(variant, base=base, activation=activation)
    file, facts = locate(variant, card)
    base, activation = base or facts.get("base"), activation or facts.get("activation")
    payload = load_payload(file)
    found = convert(payload, weights.tensors_of(payload, file, entry), str(file), prefix)
    if base is None:
        raise _no_base(file, found)
    if base in open_clip.architectures():
        model = _whole(file, found, base, activation)
    else:
        model = source.load_base(base)
        if not hasattr(model, "notes"):  # not the class, which would import torch before it is needed
            raise UserError(f"'{file}' cannot go on base={base}: that is no plain CLIP model")
        weights.check_activation(activation, model.clip, str(file))
        _fill(model, found, str(file))
    if normalise is not None:
        model.mean, model.std = blueprint.statistics(normalise)
    model.fingerprint = weights.digest(model.fingerprint, weights.sha256(file), normalise)
    model.name = str(variant or file)
    return model


def _no_base(file: Path, found: Converted) -> UserError:
    """What to add for a file that does not say what it is a part of."""
    guess = architecture(found.state, found.whole)
    if found.whole:
        which = f"its shapes are those of {guess}" if guess else "ARCHITECTURE is a name of open_clip"
        return UserError(
            f"'{file}' holds a whole CLIP model: add base={guess or 'ARCHITECTURE'}:activation=quickgelu (OpenAI's weights "
            f"and their fine-tunes) or activation=gelu (most others); {which}"
        )
    hint = f"; its shapes are those of {guess}, so perhaps base=clip:{guess}/openai" if guess else ""
    return UserError(f"'{file}' holds {found.origin} only: say what it was fine-tuned from with base=SPEC{hint}")


def _whole(file: Path, found: Converted, arch: str, activation: str | None) -> ClipModel:
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


def _fill(model: ClipModel, found: Converted, where: str) -> None:
    if found.whole:
        state, notes = mend.as_open_clip(model.clip, found.state, where)
        weights.load_into(model.clip, state, where)
        model.notes += notes
    else:
        visual = model.clip.visual
        weights.load_into(visual, mend.without_buffers(visual, found.state, where), where)
