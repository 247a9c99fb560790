"""The tiny model's vocabulary: byte-pair merges for open_clip's SimpleTokenizer, learned so that a word is a token.

A word the vocabulary has never seen falls back to pieces and in the end to bytes; nothing is out of vocabulary. The
bundled file is rebuilt, byte for byte, by::

    python -c "
    from robustcal.world.captions import vocabulary_texts
    from robustcal.models.tiny_tokenizer import MERGES, learn_merges, write_merges
    write_merges(MERGES, learn_merges(vocabulary_texts()))"
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MERGES = Path(__file__).with_name("weights") / "tiny" / "bpe.txt.gz"
CONTEXT = 24

Pair = tuple[str, str]


def learn_merges(texts: Iterable[str], limit: int = 4000) -> list[Pair]:
    """Byte-pair merges, most frequent pair first (ties in alphabetical order), until every word is one token.

    Args:
        texts: what to learn from; lower-cased and split at blanks. Words must be plain ASCII.
        limit: largest number of merges.
    """
    counts = Counter(word for text in texts for word in text.lower().split())
    words = {word: (*word[:-1], word[-1] + "</w>") for word in counts}
    merges: list[Pair] = []
    while len(merges) < limit:
        pairs: Counter[Pair] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _merge(pieces, best) for word, pieces in words.items()}
    return merges


def _merge(pieces: Sequence[str], pair: Pair) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def write_merges(path: Path, merges: Sequence[Pair]) -> None:
    """Write merges the way SimpleTokenizer reads them: a header line, then one pair per line, gzipped.

    There is no newline at the end, since the reader would take an empty last line for a token.
    """
    text = "\n".join(["#version: robustcal", *(" ".join(pair) for pair in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def tiny_tokenizer(path: Path = MERGES, context_length: int = CONTEXT) -> Any:
    """The open_clip tokenizer over these merges: texts -> (n, context_length) int64, zero after the end token."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=str(path), context_length=context_length)


def caption_tokens(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """Tokens of plain captions, the same as ``tokenizer(captions)`` and some twenty times faster: (n, context) int64.

    Captions must be ASCII words between blanks, without ``&``: then each word is encoded once and remembered, and the
    repair of text that the tokenizer begins with has nothing to do.
    """
    import torch

    tokens = torch.zeros(len(captions), tokenizer.context_length, dtype=torch.long)
    words = _word_tokens(tokenizer)
    for row, text in zip(tokens.numpy(), captions):
        ids = [token for word in text.split() for token in words(word)][: tokenizer.context_length - 2]
        row[: len(ids) + 2] = [tokenizer.sot_token_id, *ids, tokenizer.eot_token_id]
    return tokens


@lru_cache(maxsize=8)
def _word_tokens(tokenizer: Any) -> Callable[[str], list[int]]:
    return lru_cache(maxsize=4096)(tokenizer.encode)
