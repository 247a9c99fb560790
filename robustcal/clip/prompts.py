"""Prompts: from class names and templates to the sentences of each class, and the hash of a prompt set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ..types import Templates, UserError


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


def prompts_hash(classnames: Sequence[str], templates: Templates) -> str:
    """Content hash of a prompt set: part of a cell's identity."""
    plain = [text if isinstance(text, str) else list(text) for text in templates]
    return hashlib.sha256(json.dumps([list(classnames), plain]).encode()).hexdigest()[:16]
