"""Words in pieces, as BERT reads them, with the marks of Delta-CLIP (Wang et al. 2025): [bos] pieces [eos] 0 ... [CLS].

Their open_clip config names the vocabulary under ``vocab_path``, which open_clip itself does not know.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..types import UserError

if TYPE_CHECKING:
    from torch import Tensor

MARKS = ("[bos]", "[eos]", "[CLS]", "[UNK]")
#: Longer words are unknown.
LONGEST = 100
#: A sign that is a word of its own: ASCII signs, and ideographs.
ALONE = re.compile("[!-/:-@\\[-`{-~\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f]")


class WordPieces:
    """texts -> token ids (n, context) int64. `vocabulary`: piece -> its id; pieces inside a word begin with ``##``."""

    def __init__(self, vocabulary: Mapping[str, int], context: int):
        self.vocabulary, self.context, self.vocab_size = vocabulary, context, len(vocabulary)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Raises `UserError` for a text that does not fit: it would be cut without a word."""
        import torch

        bos, eos, cls, _ = (self.vocabulary[mark] for mark in MARKS)
        rows = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [bos, *(self.vocabulary[piece] for word in words(text) for piece in self.pieces(word)), eos]
            if len(ids) >= self.context:
                raise UserError(f"the prompt '{text[:80]}' has {len(ids) + 1} tokens, but the model reads {self.context}")
            row[: len(ids)] = torch.tensor(ids)
            row[-1] = cls
        return rows

    def pieces(self, word: str) -> list[str]:
        """The longest piece first, from the left; one [UNK] where no pieces make the word."""
        found: list[str] = []
        start = 0
        while start < len(word):
            inside = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if inside + word[start:end] in self.vocabulary)
            end = next(ends, None)
            if end is None or len(word.encode()) > LONGEST:
                return ["[UNK]"]
            found.append(inside + word[start:end])
            start = end
        return found


def words(text: str) -> Iterator[str]:
    """Lower case without accents, split at blanks; every punctuation mark and ideograph is a word."""
    plain = "".join(sign for sign in unicodedata.normalize("NFD", text.casefold()) if unicodedata.category(sign) != "Mn")
    spaced = "".join(f" {sign} " if _alone(sign) else sign for sign in plain)
    yield from spaced.split()


def _alone(sign: str) -> bool:
    return bool(ALONE.match(sign)) or unicodedata.category(sign).startswith("P")


def read_word_pieces(file: Path, context: int) -> WordPieces:
    """The tokenizer of a vocabulary file: a piece on each line, its id the number of the line.

    Raises:
        UserError: it is missing, or has not the marks.
    """
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"the vocabulary '{file}' cannot be read ({error})") from None
    vocabulary = {piece: place for place, piece in enumerate(lines)}
    if missing := [mark for mark in MARKS if mark not in vocabulary]:
        raise UserError(f"the vocabulary '{file}' has no {', '.join(missing)}; it is another model's")
    return WordPieces(vocabulary, context)
