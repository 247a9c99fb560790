"""The tokenizer of a model config: open_clip's own choice, with a vocabulary that fits the embedding table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..types import UserError

VOCABULARY = "bpe.txt.gz"


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


def fitting(tokenizer: Any, config: Mapping[str, Any], name: str) -> Any:
    """The tokenizer, if its ids fit the model's embedding table."""
    size, room = getattr(tokenizer, "vocab_size", None), config["text_cfg"].get("vocab_size", 49408)
    if isinstance(size, int) and "hf_tokenizer_name" not in config["text_cfg"] and size > room:
        raise UserError(
            f"'{name}' has a vocabulary of {room} words but its tokenizer has {size}; put its {VOCABULARY} beside it"
        )
    return tokenizer
