"""Spec strings, one grammar for all families: ``name[:variant][:key=value]...``."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from math import isfinite
from typing import Any

from ..types import Param, Spec, UserError


def normalise(name: str) -> str:
    """Registered names use dashes; underscores are accepted everywhere."""
    return name.strip().replace("_", "-")


def parse_spec(text: str) -> Spec:
    """Split ``name[:variant][:key=value]...``. A piece without ``=`` after a ``key=value`` continues that value.

    >>> parse_spec("transfer:from=clip:ViT-B-32/openai:steps=10").params["from"]
    'clip:ViT-B-32/openai'
    """
    name, *pieces = str(text).strip().split(":")
    variant: list[str] = []
    params: dict[str, Param] = {}
    last: str | None = None
    for piece in pieces:
        key, equals, value = piece.partition("=")
        if equals and key.replace("_", "").replace("-", "").isalnum() and "/" not in key:
            if key in params:
                raise UserError(f"spec '{text}' gives '{key}' twice")
            if value == "":
                raise UserError(f"spec '{text}' has no value after '{key}='")
            params[key], last = value, key
        elif last is None:
            variant.append(piece)
        else:
            params[last] = f"{params[last]}:{piece}"
    if not name or any(piece == "" or piece[0] == "=" for piece in variant) or any(c.isspace() for c in name):
        raise UserError(f"spec '{text}' is malformed; the form is name[:variant][:key=value]...")
    return Spec(name, ":".join(variant) or None, params)


def split_label(text: str) -> tuple[str, str]:
    """``LABEL=SPEC`` as (label, spec); the label is "" where there is none.

    No name of a spec has a ``=``, so one before the first ``:`` ends a label, which may hold anything but ``:`` and ``,``
    (commas part lists).

    >>> split_label("Ours (16)=ucat:runs/x"), split_label("pgd:steps=20")
    (('Ours (16)', 'ucat:runs/x'), ('', 'pgd:steps=20'))

    Raises:
        UserError: a label or a spec that is empty.
    """
    head, colon, rest = text.partition(":")
    if "=" not in head:
        return "", text.strip()
    label, _, name = head.rpartition("=")
    if not clean_label(label) or not name.strip():
        what = "label before" if name.strip() else "spec behind"
        raise UserError(f"'{text}' has no {what} the '='; a labelled spec is LABEL=SPEC, in quotes where the label has spaces")
    return clean_label(label), (name + colon + rest).strip()


def clean_label(text: str) -> str:
    """A label on one line: runs of spaces are one, control characters are none."""
    return "".join(c for c in " ".join(text.split()) if unicodedata.category(c) != "Cc")


#: How an error names the type of a parameter.
KINDS = {"bool": "true or false", "int": "a whole number", "float": "a finite number", "str": "a text"}


def convert(text: Param, parameter: inspect.Parameter, where: str) -> Param:
    """Turn the text of a parameter into the type of its default (or annotation).

    Args:
        where: how an error calls it, such as ``steps=ten in 'pgd:steps=ten'``.

    Raises:
        UserError: naming the spec and the expected type; nan and infinities are no numbers.
    """
    if not isinstance(text, str):
        return text
    default = parameter.default
    note = str(parameter.annotation)
    kinds = [type(default).__name__] if default not in (None, inspect.Parameter.empty) else []
    kinds += [kind for kind in ("bool", "int", "float", "str") if kind in note and kind not in kinds]
    if text.lower() == "none" and ("None" in note or default is None):
        return None
    for kind in kinds or ["str"]:
        try:
            if kind == "bool":
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
            if kind == "int":
                return int(text)
            if kind != "float":
                return text
            above, slash, below = text.partition("/")  # 1/255, and 0.5/255 as radii may be written
            value = float(Fraction(above) / int(below)) if slash else float(text)
            if isfinite(value):
                return value
        except (KeyError, ValueError, ZeroDivisionError, OverflowError):
            continue
    raise UserError(f"{where} is not {' or '.join(KINDS[kind] for kind in kinds)}")


def split_list(values: Iterable[Any] | str | None) -> tuple[str, ...]:
    """``["a,b", "c"]`` -> ``("a", "b", "c")``: lists take spaces or commas. Order kept, repeats dropped."""
    values = [values] if isinstance(values, str) else (values or [])
    return tuple(dict.fromkeys(piece.strip() for value in values for piece in str(value).split(",") if piece.strip()))
