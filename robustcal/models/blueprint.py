"""A CLIP model before it is built: architecture, weights file, normalisation, tokenizer and declared activation.

One way in for every origin (a folder, the hub, a built-in architecture with a tag), so that a model is checked and
built by the same code wherever it comes from. The folder layout is open_clip's own: `open_clip_config.json` beside
`open_clip_model.safetensors`; a `bpe.txt.gz` beside them is the vocabulary of open_clip's SimpleTokenizer.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..types import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..clip.classifier import ClipModel

CONFIG, WEIGHTS, VOCABULARY = "open_clip_config.json", "open_clip_model.safetensors", "bpe.txt.gz"
#: What a folder's weights may be called, preferred first.
WEIGHT_NAMES = (
    WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "pytorch_model.bin", "model.pth",
)  # fmt: skip


@dataclass(frozen=True)
class Blueprint:
    """Everything needed to build one CLIP model.

    `config`: open_clip's model config. `preprocess`: at least mean and std where they are not OpenAI's.
    `weights`: the file of the whole model, or None where the caller brings the tensors. `activation`: what the
    weights were trained with, "gelu" or "quickgelu"; None if nothing says so. `tokenizer`: made on demand.
    """

    name: str
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path | None
    activation: str | None
    tokenizer: Callable[[], Any]


def from_local_dir(path: str | Path) -> Blueprint:
    """The blueprint in an open_clip folder.

    Raises:
        UserError: if the folder, its config or its weights are missing, or the config is no open_clip config.
    """
    folder = Path(path).expanduser()
    config = read_config(folder)
    model, vocabulary = config["model_cfg"], folder / VOCABULARY
    return Blueprint(
        name=f"local-dir:{path}",
        config=model,
        preprocess=config.get("preprocess_cfg", {}),
        weights=find_weights(folder),
        activation="quickgelu" if model.get("quick_gelu") else "gelu",
        tokenizer=partial(make_tokenizer, model, f"local-dir:{folder}", vocabulary if vocabulary.is_file() else None),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `open_clip_config.json` of a folder. Raises `UserError` if it is missing or unusable."""
    file = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"model folder '{folder}' does not exist")
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"model folder '{folder}' has no {CONFIG}; it is not an open_clip folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is not readable JSON ({error})") from None
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not all(isinstance(model.get(k), dict) for k in ("vision_cfg", "text_cfg")):
        raise UserError(f"'{file}' is no open_clip config: it needs model_cfg with vision_cfg and text_cfg")
    return config


def find_weights(folder: Path) -> Path:
    """The weights file of an open_clip folder. Raises `UserError` if there is none."""
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"model folder '{folder}' has no weights; expected {WEIGHTS}")


def folder_identity(folder: Path) -> str:
    """Content hash of an open_clip folder: config, weights and vocabulary. Needs no torch."""
    read_config(folder)
    files = [folder / CONFIG, find_weights(folder), folder / VOCABULARY]
    return weights.digest(*(weights.sha256(file) for file in files if file.is_file()))


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

    if activation and blueprint.activation and activation != blueprint.activation:
        raise UserError(
            f"'{blueprint.name}' declares {blueprint.activation} weights, but activation={activation} was asked for; "
            f"leave activation= out, or use an architecture with {activation}"
        )
    trained_with = activation or blueprint.activation
    config = copy.deepcopy(dict(blueprint.config))
    if state is None:
        if blueprint.weights is None:
            raise UserError(f"'{blueprint.name}' names an architecture but no weights")
        state = weights.load_state_dict(blueprint.weights)
        fingerprint = fingerprint or weights.digest(weights.sha256(blueprint.weights), trained_with)
    where = str(blueprint.weights or blueprint.name)
    import open_clip  # noqa: F401 - not for the first time under "meta": torch 2.6 cannot import its compiler there

    with torch.device("meta"):  # shapes only: a file of another architecture is refused before memory is taken
        sketch = make_module(config, blueprint.name)
        state = as_open_clip(sketch, state)
        weights.match(state, sketch, where)
    clip = make_module(config, blueprint.name)
    weights.load_into(clip, state, where)
    weights.check_activation(trained_with, clip, blueprint.name)
    preprocess = blueprint.preprocess
    return ClipModel(
        clip.float(),
        _fitting(blueprint.tokenizer(), config, blueprint.name),
        size=image_side(clip.visual, blueprint.name),
        mean=preprocess.get("mean") or OPENAI_MEAN,
        std=preprocess.get("std") or OPENAI_STD,
        fingerprint=fingerprint or weights.digest(blueprint.name, trained_with),
        scores="softmax" if getattr(clip, "logit_bias", None) is None else "sigmoid",
        name=blueprint.name,
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
    from open_clip.model import CLIP, CustomTextCLIP

    config = copy.deepcopy(config)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    borrowed_text = "hf_model_name" in config["text_cfg"]
    if borrowed_text:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or borrowed_text
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom else CLIP
    try:
        return kind(**config)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{name}' describes a model that cannot be built ({reason[:160]})") from None


def as_open_clip(clip: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename third-party tensors the way open_clip does, and mend scalar shapes; values are never changed."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = convert_state_dict(clip, state)
    if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        own = getattr(clip, key, None)
        if key in state and own is not None and state[key].numel() == 1:
            state[key] = state[key].reshape(own.shape)
    return state


def image_side(visual: nn.Module, name: str) -> int:
    """The side in pixels of a tower's square input."""
    size = getattr(visual, "image_size", None)
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise UserError(f"'{name}' takes images of size {size}; only square images are supported")
    return int(sides.pop())


def save_local_dir(
    clip: nn.Module, config: Mapping[str, Any], path: str | Path, dtype: torch.dtype | None = None, *,
    preprocess: Mapping[str, Any] | None = None, vocabulary: str | Path | None = None,
) -> str:  # fmt: skip
    """Write a model as an open_clip folder that `open_clip.create_model('local-dir:PATH')` itself loads.

    Args:
        clip: the open_clip model. `config`: its `model_cfg` (embed_dim, vision_cfg, text_cfg, quick_gelu ...).
        dtype: how floating point is stored, such as torch.float16; loading casts back to float32.
        preprocess: open_clip's `preprocess_cfg`; default: mean and std as the model's image tower carries them.
        vocabulary: a merges file for SimpleTokenizer, copied to `bpe.txt.gz`.

    Returns: the sha256 of the weights file.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    visual = clip.visual
    mean, std = getattr(visual, "image_mean", None) or OPENAI_MEAN, getattr(visual, "image_std", None) or OPENAI_STD
    preprocess = dict(preprocess or {"mean": list(mean), "std": list(std)})
    digest = weights.save_state_dict(clip.state_dict(), folder / WEIGHTS, dtype)
    if vocabulary is not None and Path(vocabulary).resolve() != (folder / VOCABULARY).resolve():
        shutil.copyfile(vocabulary, folder / VOCABULARY)
    text = json.dumps({"model_cfg": dict(config), "preprocess_cfg": preprocess}, indent=2)
    (folder / CONFIG).write_text(text + "\n")
    return digest


def make_tokenizer(config: Mapping[str, Any], name: str, vocabulary: Path | None = None) -> Any:
    """open_clip's tokenizer for a model config: texts -> token ids (n, context).

    Args:
        name: what the model was asked for as; open_clip recognises some tokenizers by it.
        vocabulary: a gzipped merges file for SimpleTokenizer instead of the one open_clip ships.
    """
    from open_clip import get_tokenizer
    from open_clip.tokenizer import SimpleTokenizer

    text = config["text_cfg"]
    length = text.get("context_length", 77)
    try:
        if vocabulary is not None:
            return SimpleTokenizer(bpe_path=str(vocabulary), context_length=length)
        if "hf_tokenizer_name" in text or ("siglip" in name.lower() and ":" not in name):
            return get_tokenizer(name, context_length=length)
        return SimpleTokenizer(context_length=length, **(text.get("tokenizer_kwargs") or {}))
    except ImportError as error:
        how = f"needs {error.name}: pip install 'robustcal[transformers]'"
        raise UserError(f"the tokenizer of '{name}' {how}") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"the tokenizer of '{vocabulary or name}' cannot be made ({reason})") from None


def _fitting(tokenizer: Any, config: Mapping[str, Any], name: str) -> Any:
    """The tokenizer, if its ids fit the model's embedding table."""
    size, room = getattr(tokenizer, "vocab_size", None), config["text_cfg"].get("vocab_size", 49408)
    if isinstance(size, int) and "hf_tokenizer_name" not in config["text_cfg"] and size > room:
        raise UserError(
            f"'{name}' has a vocabulary of {room} words but its tokenizer has {size}; put its {VOCABULARY} beside it"
        )
    return tokenizer
