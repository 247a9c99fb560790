"""Prompts: from class names and templates to the sentences of each class, their length in tokens, and the hash of the set."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..types import Templates, UserError

if TYPE_CHECKING:
    from torch import Tensor


def sentences(classnames: Sequence[str], templates: Templates) -> list[list[str]]:
    """The sentences of each class, index = label.

    Args:
        templates: texts with ``{}`` for the class name, which every class shares; or one list of texts for each class,
            in which ``{}`` may be absent (whole sentences).

    Raises:
        UserError: no text, a shared one without ``{}``, or lists that are not one per class, each with a text.
    """
    texts = [] if isinstance(templates, str) else list(templates)
    shared = [text for text in texts if isinstance(text, str)]
    if not texts or 0 < len(shared) < len(texts):
        raise UserError(f"templates {templates!r} are neither a list of texts nor one list of texts for each class")
    if shared:
        bad = next((text for text in shared if "{}" not in text), None)
        if bad is not None:
            raise UserError(f"template '{bad}' has no {{}} for the class name")
        return [_filled(shared, name) for name in classnames]
    if len(texts) != len(classnames):
        raise UserError(f"there are {len(texts)} lists of templates for {len(classnames)} classes")
    for name, own in zip(classnames, texts, strict=True):
        if isinstance(own, str) or not own or not all(isinstance(text, str) for text in own):
            raise UserError(f"the templates of class '{name}' are {own!r}, not a list of texts")
    return [_filled(own, name) for name, own in zip(classnames, texts, strict=True)]


def _filled(templates: Sequence[str], name: str) -> list[str]:
    try:
        return [text.format(name) for text in templates]
    except (IndexError, KeyError, ValueError, AttributeError):
        raise UserError(f"templates {list(templates)!r} hold braces other than {{}} for the class name") from None


def tokens_of(tokenizer: Callable[..., Tensor], texts: list[str], model: str) -> Tensor:
    """Token ids (n, context) of texts that all fit.

    A tokenizer cuts a text that is too long without a word: the end of the template, or the class name itself, is then
    not read. A row whose last places are not padding is made again with more room, and must come out the same.

    Raises:
        UserError: for a text with more tokens than the model reads, naming it and both numbers.
    """
    ids = tokenizer(texts)
    if not _has_room(tokenizer):
        return ids
    context, padding = ids.shape[1], tokenizer([""])[0, -1]
    full = (ids[:, -2:] != padding).any(1).nonzero()[:, 0].tolist()
    longest = 4 * context + max((len(texts[row].encode()) for row in full), default=0)
    for row in full:
        roomy = tokenizer([texts[row]], context_length=longest)[0]
        if bool((roomy[context:] != padding).any()) or not bool((roomy[:context] == ids[row]).all()):
            count = int((roomy != padding).nonzero().max()) + 1
            raise UserError(
                f"the prompt '{_shown(texts[row])}' has {max(count, context + 1)} tokens, but the context of model '{model}' "
                f"is {context}; shorten the template or the class name"
            )
    return ids


def _has_room(tokenizer: Callable[..., Tensor]) -> bool:
    """Whether the tokenizer takes `context_length` and cuts at it; one that shortens texts by a rule of its own is believed."""
    try:
        return "context_length" in inspect.signature(tokenizer).parameters and getattr(tokenizer, "reduction_fn", None) is None
    except (TypeError, ValueError):
        return False


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:50]} ... {text[-25:]}"


def prompts_hash(classnames: Sequence[str], templates: Templates) -> str:
    """Content hash of a prompt set: part of a cell's identity."""
    plain = [text if isinstance(text, str) else list(text) for text in templates]
    return hashlib.sha256(json.dumps([list(classnames), plain]).encode()).hexdigest()[:16]
