"""CLIPModel of the package transformers, as an open_clip model: its config, its tensors, its vocabulary.

Both compute the same function: transformers keeps queries, keys and values apart and its projections transposed. SigLIP
is not translated; open_clip publishes the same weights under its own names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: The files of such a folder that decide its logits, besides the weights.
CONFIG = "config.json"
FILES = (CONFIG, "preprocessor_config.json", "vocab.json", "tokenizer.json", "merges.txt")
KINDS = ("clip", "siglip", "siglip2", "chinese_clip", "altclip", "clip_vision_model", "clip_text_model")
#: What transformers leaves out of a config.json because it is its default.
TEXT = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu", "vocab_size": 49408, "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}  # fmt: skip
VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
SIGLIP = (
    "holds a SigLIP model of transformers, whose towers are not translated; use the same weights from open_clip, such as "
    "clip:ViT-B-16-SigLIP/webli, or convert them to an open_clip folder"
)
#: transformers' names -> open_clip's, longest first; `{}` is the number of a layer.
NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
LAYER = {
    ".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}  # fmt: skip


def is_model(folder: Path) -> bool:
    """Whether a folder is one of transformers for a model with images and texts."""
    return _json(folder / CONFIG).get("model_type") in KINDS


def has_its_names(state: Mapping[str, Any]) -> bool:
    """Whether tensors bear transformers' names."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def model_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's `model_cfg` and `preprocess_cfg` for a folder of transformers.

    Raises:
        UserError: if it is not a CLIPModel, or has parts that open_clip's has not.
    """
    config = _json(folder / CONFIG)
    kind = config.get("model_type")
    if kind in ("siglip", "siglip2"):
        raise UserError(f"'{folder}' {SIGLIP}")
    if kind != "clip":
        raise UserError(f"'{folder}' holds a '{kind}' of transformers, not a CLIPModel; convert it to an open_clip folder")
    text = {**TEXT, **(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    vision = {**VISION, **(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
    acts = {text["hidden_act"], vision["hidden_act"]}
    if len(acts) > 1 or not acts <= {"quick_gelu", "gelu"}:
        raise UserError(f"'{folder}' has the activations {', '.join(sorted(acts))}; both towers need quick_gelu, or gelu")
    model = {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": acts == {"quick_gelu"},
        "vision_cfg": {
            **_tower(vision), "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "image_size": vision["image_size"], "patch_size": vision["patch_size"],
        },
        "text_cfg": {
            **_tower(text), "heads": text["num_attention_heads"], "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
        },
    }  # fmt: skip
    if text["eos_token_id"] not in (2, text["vocab_size"] - 1):  # else it is the largest id, which open_clip looks for
        model["text_cfg"] |= {"pool_type": "eos", "eos_id": text["eos_token_id"]}
    pixels = _json(folder / "preprocessor_config.json")
    return model, {key: pixels[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in pixels}


def _tower(part: Mapping[str, Any]) -> dict[str, Any]:
    width = part["hidden_size"]
    return {
        "width": width, "layers": part["num_hidden_layers"], "mlp_ratio": part["intermediate_size"] / width,
        "norm_kwargs": {"eps": part["layer_norm_eps"]},
    }  # fmt: skip


def checked_tokenizer(folder: Path, make: Callable[[], Any]) -> Any:
    """open_clip's tokenizer, if the vocabulary in the folder is the same. Raises `UserError` if it is another."""
    tokenizer = make()
    vocabulary = _json(folder / "vocab.json") or _json(folder / "tokenizer.json").get("model", {}).get("vocab", {})
    if vocabulary and isinstance(vocabulary, dict) and vocabulary != tokenizer.encoder:
        raise UserError(
            f"'{folder}' has a vocabulary of its own ({len(vocabulary)} words), not the one of CLIP; put it beside the "
            "weights as bpe.txt.gz (merges in open_clip's form)"
        )
    return tokenizer


def renamed(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a CLIPModel (or of one of its towers) under open_clip's names.

    Raises:
        UserError: if they are those of SigLIP.
    """
    import torch

    if any(key.startswith(("vision_model.head.", "text_model.head.")) for key in state):
        raise UserError(f"'{where}' {SIGLIP}")
    done: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".self_attn.q_proj." in key:
            others = [state.get(key.replace(".q_proj.", f".{part}_proj.")) for part in "kv"]
            parts = [value, *(part for part in others if part is not None)]
            if len(parts) < 3:
                raise UserError(f"'{where}' has '{key}' without its keys or values; it is damaged")
            done[_name(key.replace(".self_attn.q_proj.", ".attn.in_proj_"))] = torch.cat(parts)
        elif ".self_attn.k_proj." not in key and ".self_attn.v_proj." not in key:
            done[_name(key)] = value.t() if key in ("visual_projection.weight", "text_projection.weight") else value
    return done


def _name(key: str) -> str:
    for old, new in (*NAMES.items(), *LAYER.items()):
        key = key.replace(old, new) if old in key else key
    return key


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
