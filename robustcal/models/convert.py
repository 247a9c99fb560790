"""Released checkpoints -> the project's own tensor names. Pure functions on what `weights.load_payload` returned.

The TeCoA, PMG-AFT, TGA-ZSR and UCAT releases keep the fine-tuned image tower under `vision_encoder_state_dict`,
beside a visual prompter's `state_dict`; RobustVLM (FARE) saves the bare image tower; open_clip and OpenAI save the
whole model. Their image towers share OpenAI's tensor names, often behind a `module.` or `visual.` prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..types import UserError
from . import huggingface
from .mend import NOT_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.", "model.", "clip.")
TEXT_KEYS = ("token_embedding.weight", "text.token_embedding.weight", "text_projection")
TOWER_KEYS = ("class_embedding", "attnpool.c_proj.weight", "trunk.patch_embed.proj.weight", "conv1.weight")


@dataclass(frozen=True)
class Converted:
    """Tensors under open_clip's names: of the whole model, or of the image tower alone (then without `visual.`)."""

    whole: bool
    state: Mapping[str, Tensor]
    origin: str


def convert(
    payload: Mapping[str, Any], state: Mapping[str, Tensor], where: str, prefix: str | None = None
) -> Converted:
    """Recognise a checkpoint and rename its tensors.

    Args:
        payload: everything in the file, to notice what must not be dropped silently.
        state: its tensors, as `weights.load_state_dict` chose them.
        prefix: what stands before the names of the model that is meant, such as ``model.student.``; default: whatever
            wrappers put before all of them.

    Raises:
        UserError: if it is no CLIP model or image tower, or also needs a visual prompt that is not a part of a tower.
    """
    lineage = "vision_encoder_state_dict" in payload
    if lineage:
        refuse_prompts(payload, where)
    state = unwrap(state if prefix is None else below(state, prefix, where))
    refuse_twins(state, where)
    if huggingface.has_its_names(state):
        state = huggingface.renamed(state, where)
    state = {key: value for key, value in state.items() if key not in NOT_WEIGHTS}
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    if tower and any(key in state for key in TEXT_KEYS):
        return Converted(True, state, "whole CLIP model")
    if tower and len(tower) == len(state):
        return Converted(False, tower, "image tower (visual.*)")
    if any(key in state for key in TOWER_KEYS) and not any(key.startswith("text") for key in state):
        return Converted(False, state, "vision_encoder_state_dict" if lineage else "image tower")
    heads = prefixes(state)
    hint = f"; perhaps prefix={heads[0]}" if heads and heads[0] else ""
    names = ", ".join(list(state)[:3])
    raise UserError(f"'{where}' holds neither a CLIP model nor its image tower (its tensors: {names} ...){hint}")


def below(state: Mapping[str, Tensor], prefix: str, where: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it. Raises `UserError` if there are none."""
    prefix = prefix if prefix.endswith(".") else prefix + "."
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        known = ", ".join(dict.fromkeys(key.partition(".")[0] + "." for key in state))
        raise UserError(f"'{where}' has no tensors under prefix={prefix}; its names begin with: {known[:120]}")
    return found


def prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of each image tower among these tensors."""
    marks = ("class_embedding", "attnpool.c_proj.weight", "trunk.patch_embed.proj.weight")
    found = (key.removesuffix(mark).removesuffix("visual.") for key in state for mark in marks if _ends(key, mark))
    return list(dict.fromkeys(head.removesuffix("vision_model.embeddings.") for head in found))


def _ends(key: str, mark: str) -> bool:
    return key == mark or key.endswith("." + mark)


def refuse_twins(state: Mapping[str, Tensor], where: str) -> None:
    """Two image towers side by side (raw and moving average, student and teacher): only the user knows which is meant."""
    heads = prefixes(state)
    if len(heads) > 1:
        told = ", ".join(f"'{head}'" for head in heads[:4])
        raise UserError(f"'{where}' holds {len(heads)} models, under {told}; choose one with prefix=")


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers (DataParallel, compile, a surrounding module) put before every name."""
    state = dict(state)
    while prefix := next((w for w in WRAPPERS if state and all(key.startswith(w) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def refuse_prompts(payload: Mapping[str, Any], where: str) -> None:
    """A learnt visual prompt changes the model's input; a tower without it would be another model."""
    for entry in ("state_dict", "add_prompter"):
        learnt = payload.get(entry)
        if isinstance(learnt, Mapping) and any(getattr(value, "numel", int)() for value in learnt.values()):
            raise UserError(f"'{where}' also holds a visual prompt ('{entry}'), which would not be applied; refused")
