"""A model as a folder: `open_clip_config.json` beside the weights, as open_clip writes it, or a folder of transformers.

A `bpe.txt.gz` beside them is the vocabulary of open_clip's SimpleTokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..clip.untrusted import some
from ..types import UserError
from . import huggingface
from .blueprint import OPENAI_MEAN, OPENAI_STD, Blueprint
from .tokens import VOCABULARY, make_tokenizer
from .word_pieces import read_word_pieces

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The key of `text_cfg` that names a list of word pieces; open_clip does not know it.
PIECES = "vocab_path"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
#: What a folder's weights may be called, in the order in which open_clip prefers them.
WEIGHT_NAMES = (
    WEIGHTS, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip


def is_model(path: Path) -> bool:
    """Whether a folder holds a whole model, of open_clip or of transformers (rather than a training run)."""
    return (path / CONFIG).is_file() or huggingface.is_model(path)


def from_local_dir(path: str | Path) -> Blueprint:
    """The blueprint in a folder of open_clip or transformers.

    Raises:
        UserError: if the folder, its config or its weights are missing, or the config is no open_clip config.
    """
    folder = Path(path).expanduser()
    vocabulary = folder / VOCABULARY
    if huggingface.is_model(folder) and not (folder / CONFIG).is_file():
        return of_transformers(folder, f"local-dir:{path}", find_weights(folder))
    return described(
        read_config(folder), f"local-dir:{path}", find_weights(folder), f"local-dir:{folder}", folder,
        vocabulary if vocabulary.is_file() else None,
    )  # fmt: skip


def of_transformers(folder: Path, name: str, file: Path) -> Blueprint:
    """The blueprint of a `CLIPModel` of transformers: its `config.json` and what lies beside it.

    Without a `preprocessor_config.json` the pixel statistics are OpenAI's, as those of transformers' own default.
    """
    config, preprocess = huggingface.model_config(folder)
    vocabulary = folder / VOCABULARY
    make = partial(make_tokenizer, config, name, vocabulary if vocabulary.is_file() else None)
    tokenizer = make if vocabulary.is_file() else partial(huggingface.checked_tokenizer, folder, make)
    return Blueprint(name, config, preprocess, file, "quickgelu" if config["quick_gelu"] else "gelu", tokenizer)


def described(
    config: Mapping[str, Any], name: str, file: Path, tokenizer: str, folder: Path, vocabulary: Path | None = None
) -> Blueprint:
    """The blueprint that an `open_clip_config.json` in a folder describes. `tokenizer`: the name under which open_clip finds it.

    Without the key `quick_gelu` open_clip builds GELU. So does this, but then no one has said it: `activation=` decides.

    Raises:
        UserError: its texts are read with a list of word pieces that is not in the folder.
    """
    model = config["model_cfg"]
    make: Callable[[], Any] = partial(make_tokenizer, model, tokenizer, vocabulary)
    if pieces := piece_list(config):
        if not (folder / pieces).is_file():
            raise UserError(f"'{name}' reads its texts with the vocabulary {pieces}, which is not in '{folder}'; put it there")
        text = {key: value for key, value in model["text_cfg"].items() if key != PIECES}
        make = partial(read_word_pieces, folder / pieces, text.get("context_length", 77))
        model = {**model, "text_cfg": text}
    return Blueprint(
        name=name,
        config=model,
        preprocess=config.get("preprocess_cfg") or {},
        weights=file,
        activation="quickgelu" if model.get("quick_gelu") else "gelu",
        tokenizer=make,
        declared=model.get("quick_gelu") is not None,
    )


def piece_list(config: Mapping[str, Any]) -> str:
    """The file name of the word pieces that a config names (see `word_pieces`); "" where it names none."""
    return Path(str(config["model_cfg"]["text_cfg"].get(PIECES) or "")).name


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `open_clip_config.json` of a folder. Raises `UserError` if it is missing or unusable."""
    file = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"model folder '{folder}' does not exist")
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"model folder '{folder}' has no {CONFIG}; it is not an open_clip folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is not readable JSON ({error})") from None
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not all(isinstance(model.get(k), dict) for k in ("vision_cfg", "text_cfg")):
        raise UserError(f"'{file}' is no open_clip config: it needs model_cfg with vision_cfg and text_cfg")
    return config


def find_weights(folder: Path) -> Path:
    """The weights file of a model folder, whatever its name if there is one only.

    Raises:
        UserError: if there is none, several under names of their own, or one in several parts.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(file for end in ("safetensors", "bin", "pth", "pt") for file in folder.glob(f"*.{end}"))
    if any(folder.glob("*.index.json")):
        raise UserError(f"the weights in '{folder}' are in several parts; join them into one {WEIGHTS}")
    if len(others) == 1:
        return others[0]
    if others:
        told = some([file.name for file in others])
        raise UserError(f"model folder '{folder}' has several weights files ({told}); name the one that counts {WEIGHTS}")
    raise UserError(f"model folder '{folder}' has no weights; expected {WEIGHTS}")


def folder_identity(folder: Path) -> str:
    """Content hash of a model folder: config, weights and vocabulary. Needs no torch."""
    if huggingface.is_model(folder) and not (folder / CONFIG).is_file():
        files = [*(folder / name for name in huggingface.FILES), find_weights(folder), folder / VOCABULARY]
    else:
        pieces = piece_list(read_config(folder))
        files = [folder / CONFIG, find_weights(folder), folder / VOCABULARY, *([folder / pieces] if pieces else [])]
    return weights.digest(*(weights.sha256(file) for file in files if file.is_file()))


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
