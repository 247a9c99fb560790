"""Which open_clip architecture a checkpoint's tensors belong to, told from their shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .open_clip import configs

if TYPE_CHECKING:
    from torch import Tensor

#: A shape that a config and a state have in common: name of the fact -> number, or numbers.
Facts = dict[str, Any]


def architecture(state: Mapping[str, Tensor], whole: bool) -> str | None:
    """The open_clip architecture with these shapes; the plainest name of several; None if there is none.

    Args:
        state: tensors under open_clip's names; of the image tower alone without ``visual.``.
        whole: whether they are a whole model's.
    """
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.") or not whole}
    found = image_facts(tower) | (text_facts(state) if whole else {})
    fitting = [name for name, config in _known() if found and _expected(config, found) == found]
    return min(fitting, key=lambda name: ("quickgelu" in name, len(name), name), default=None)


def image_facts(tower: Mapping[str, Tensor]) -> Facts:
    """Width, patch, layers, image side and embedding of a ViT; layers, width and embedding of a ResNet; {} of others."""
    if {"conv1.weight", "proj", "positional_embedding"} <= tower.keys():
        width, patch = int(tower["conv1.weight"].shape[0]), int(tower["conv1.weight"].shape[-1])
        grid = round((len(tower["positional_embedding"]) - 1) ** 0.5)
        return {"width": width, "patch_size": patch, "layers": _depth(tower, "transformer.resblocks."),
                "image_size": grid * patch, "embed_dim": int(tower["proj"].shape[-1])}  # fmt: skip
    if {"conv3.weight", "attnpool.c_proj.weight"} <= tower.keys():
        return {"width": int(tower["conv3.weight"].shape[0]), "layers": [_depth(tower, f"layer{n}.") for n in (1, 2, 3, 4)],
                "embed_dim": int(tower["attnpool.c_proj.weight"].shape[0])}  # fmt: skip
    return {}


def text_facts(state: Mapping[str, Tensor]) -> Facts:
    """Context, vocabulary, width and layers of a text tower; {} where it is not open_clip's own."""
    text = {key.removeprefix("text."): value for key, value in state.items() if not key.startswith("visual.")}
    if not {"positional_embedding", "token_embedding.weight"} <= text.keys():
        return {}
    vocabulary, width = text["token_embedding.weight"].shape
    return {"text": (len(text["positional_embedding"]), int(vocabulary), int(width), _depth(text, "transformer.resblocks."))}


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({match[1] for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))})


def _known() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in configs():
        yield path.stem, json.loads(path.read_text())


def _expected(config: Mapping[str, Any], wanted: Facts) -> Facts:
    """The same facts as a config states them."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    told = {key: vision.get(key) for key in ("width", "patch_size", "layers", "image_size")} | {"embed_dim": config["embed_dim"]}
    told["text"] = tuple(text.get(key) for key in ("context_length", "vocab_size", "width", "layers"))
    return {key: told[key] for key in wanted}
