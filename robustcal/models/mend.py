"""What open_clip mends in a checkpoint before it loads it, mirrored step by step: what loads there gives the same here.

The steps are those of `open_clip.factory.load_checkpoint`, done with open_clip's own functions where it has one. Two
are wider: index and mask buffers that older versions stored are dropped wherever they stand, and only if they say what
the model computes by itself. Each change of values is told in a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..types import UserError
from . import huggingface

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Facts OpenAI's archives store as tensors; they are no weights.
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
POSITIONS = ("visual.positional_embedding", "positional_embedding", "text.positional_embedding")
#: How many times its stored size a table of positions may be stretched to.
STRETCH = 64


def as_open_clip(clip: nn.Module, state: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under `clip`'s own names and shapes, and a note on each value that was filled in or resized.

    Args:
        clip: the open_clip model; on the meta device it will do.

    Raises:
        UserError: if a stored buffer contradicts the model.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    named = {key.removeprefix("module."): value for key, value in state.items() if key not in NOT_WEIGHTS}
    if huggingface.has_its_names(named):
        named = huggingface.renamed(named, where)
    named = dict(convert_state_dict(clip, named))
    if "positional_embedding" in named and not hasattr(clip, "positional_embedding"):
        named = dict(convert_to_custom_text_state_dict(named))
    for key in ("logit_scale", "logit_bias"):
        own = getattr(clip, key, None)
        if key in named and own is not None and named[key].numel() == 1:
            named[key] = named[key].reshape(own.shape)
    named = without_buffers(clip, named, where)
    notes = []
    if "logit_bias" not in named and "logit_scale" in named and getattr(clip, "logit_bias", None) is not None:
        named["logit_bias"] = named["logit_scale"].new_zeros(named["logit_scale"].shape)
        notes.append("the file has no logit bias; it is 0, as in open_clip")
    return named, (*notes, *_resize(clip, named, where))


def without_buffers(module: nn.Module, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """`state` without buffers that the module computes by itself: position indices and causal masks.

    Raises:
        UserError: if one of them says something else than the module computes.
    """
    own, kept = module.state_dict().keys(), {}
    for key, value in state.items():
        last = key.rpartition(".")[2]
        if key in own or last not in ("position_ids", "attn_mask"):
            kept[key] = value
        elif not (_counts(value) if last == "position_ids" else _causal(value)):
            raise UserError(f"'{where}': its buffer '{key}' is not the one this architecture uses, so it is another model")
    return kept


def _counts(value: Tensor) -> bool:
    """Whether a tensor holds 0, 1, 2 ..."""
    flat = value.flatten().tolist()
    return flat == list(range(len(flat)))


def _causal(value: Tensor) -> bool:
    """Whether a square mask hides exactly what comes later: -inf (or the lowest number of a half) above the diagonal."""
    if value.ndim != 2 or value.shape[0] != value.shape[1]:
        return False
    later = value.new_ones(value.shape).triu(1).bool()
    return bool((value[~later] == 0).all()) and bool((value[later] <= -6e4).all())


def _resize(clip: nn.Module, state: dict[str, Tensor], where: str) -> list[str]:
    """Stretch tables of positions to the model's length by open_clip's rule, in place; what was done."""
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    own = clip.state_dict()
    wanted = {key: tuple(own[key].shape) for key in POSITIONS if key in own and key in state}
    before = {key: tuple(state[key].shape) for key in wanted}
    if any(len(before[key]) != 2 or before[key][1] != shape[1] for key, shape in wanted.items()):
        return []
    if any(shape[0] > STRETCH * before[key][0] for key, shape in wanted.items()):
        return []
    try:
        resize_pos_embed(state, clip)
        resize_text_pos_embed(state, clip)
    except (AttributeError, RuntimeError, ValueError, AssertionError):  # a tower without such a table: `match` names it
        return []
    stretched = [key for key in wanted if tuple(state[key].shape) != before[key]]
    return [f"{key}: {before[key][0]} positions stretched to {state[key].shape[0]}, as open_clip does" for key in stretched]
