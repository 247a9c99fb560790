"""A CLIP model before it is built: architecture, weights file, normalisation, tokenizer and declared activation.

One way in for every origin (a folder, the hub, a built-in architecture with a tag), so that a model is checked and
built by the same code wherever it comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..types import UserError
from .mend import as_open_clip
from .tokens import fitting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..clip.classifier import ClipModel


@dataclass(frozen=True)
class Blueprint:
    """Everything needed to build one CLIP model.

    `config`: open_clip's model config. `preprocess`: at least mean and std where they are not OpenAI's.
    `weights`: the file of the whole model, or None where the caller brings the tensors. `activation`: what the
    weights were trained with, "gelu" or "quickgelu"; None if nothing says so. `declared`: whether their origin says so,
    rather than open_clip's default filling a gap. `tokenizer`: made on demand.
    """

    name: str
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path | None
    activation: str | None
    tokenizer: Callable[[], Any]
    declared: bool = True


def build(
    blueprint: Blueprint, state: Mapping[str, Tensor] | None = None, activation: str | None = None,
    fingerprint: str | None = None,
) -> ClipModel:  # fmt: skip
    """Build the model, load its weights strictly, and wrap it for classification.

    Args:
        state: the tensors of the whole model; default: read from the blueprint's file.
        activation: what the user says the weights were trained with; a contradiction is refused.
        fingerprint: identifies the weights; default: from the weights file.
    """
    import torch

    from ..clip.classifier import ClipModel

    if activation and blueprint.activation and blueprint.declared and activation != blueprint.activation:
        raise UserError(
            f"'{blueprint.name}' declares {blueprint.activation} weights, but activation={activation} was asked for; "
            f"leave activation= out, or use an architecture with {activation}"
        )
    trained_with = activation or blueprint.activation
    config = copy.deepcopy(dict(blueprint.config))
    notes: tuple[str, ...] = ()
    if not blueprint.declared:
        config["quick_gelu"] = trained_with == "quickgelu"
        said = "its config does not say which activation it was trained with: gelu is open_clip's default"
        notes = () if activation else (f"{said}; activation=quickgelu if that is wrong",)
    if state is None:
        if blueprint.weights is None:
            raise UserError(f"'{blueprint.name}' names an architecture but no weights")
        state = weights.load_state_dict(blueprint.weights)
        fingerprint = fingerprint or weights.digest(weights.sha256(blueprint.weights), trained_with)
    where = str(blueprint.weights or blueprint.name)
    import open_clip  # noqa: F401 - not for the first time under "meta": torch 2.6 cannot import its compiler there

    with torch.device("meta"):  # shapes only: a file of another architecture is refused before memory is taken
        sketch = make_module(config, blueprint.name)
    state, mended = as_open_clip(sketch, state, where)
    weights.match(state, sketch, where)
    clip = make_module(config, blueprint.name)
    weights.load_into(clip, state, where)
    weights.check_activation(trained_with, clip, blueprint.name)
    preprocess = blueprint.preprocess
    return ClipModel(
        clip.float(),
        fitting(blueprint.tokenizer(), config, blueprint.name),
        size=image_side(clip.get_submodule("visual"), blueprint.name),
        mean=preprocess.get("mean") or OPENAI_MEAN,
        std=preprocess.get("std") or OPENAI_STD,
        fingerprint=fingerprint or weights.digest(blueprint.name, trained_with),
        scores="softmax" if getattr(clip, "logit_bias", None) is None else "sigmoid",
        name=blueprint.name,
        notes=(*notes, *mended),
    )


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
NORMALISATIONS = {
    "openai": (OPENAI_MEAN, OPENAI_STD),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels under a name. Raises `UserError` for a name that is not known."""
    if name not in NORMALISATIONS:
        raise UserError(f"normalise={name} is unknown; it is {', '.join(NORMALISATIONS)}")
    return NORMALISATIONS[name]


def make_module(config: dict[str, Any], name: str) -> nn.Module:
    """open_clip's CLIP, CustomTextCLIP or CoCa for a config, with random weights.

    Raises:
        UserError: if the config asks for something open_clip does not know or that cannot be built.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CLIPTextCfg, CustomTextCLIP

    config = copy.deepcopy(config)
    known = {part.name for part in fields(CLIPTextCfg)}
    if unknown := sorted(set(config["text_cfg"]) - known):
        told = f"text_cfg with {', '.join(unknown)}, which open_clip does not know: its texts would be read in another way"
        raise UserError(f"'{name}' has a {told}; refused")
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    borrowed_text = "hf_model_name" in config["text_cfg"]
    if borrowed_text:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or borrowed_text
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom else CLIP
    try:
        module: nn.Module = kind(**config)
        return module
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{name}' describes a model that cannot be built ({reason[:160]})") from None


def image_side(visual: nn.Module, name: str) -> int:
    """The side in pixels of a tower's square input."""
    size = getattr(visual, "image_size", None)
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise UserError(f"'{name}' takes images of size {size}; only square images are supported")
    return int(sides.pop())
