"""Short names for long specs: what a table prints in place of ``pgd:steps=20:step=none:restarts=1:...``."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ..registry import parse_spec
from ..types import Param, Spec, UserError, format_param


def short_labels(specs: Iterable[str]) -> dict[str, str]:
    """The shortest distinct label of each canonical spec: its name, its variant, and the parameters that differ.

    A label is itself a spec: with the defaults it leaves out it names the same thing. What tells two things of one
    spec apart (``pgd:steps=20 #fp16``) stays at its end.

    >>> short_labels(["pgd:steps=20:return=best", "pgd:steps=100:return=best", "clean"])["pgd:steps=100:return=best"]
    'pgd:steps=100'
    """
    split = {text: text.rpartition(" #") if " #" in text else (text, "", "") for text in dict.fromkeys(specs)}
    parsed = {text: _parse(spec) for text, (spec, _, _) in split.items()}
    labels: dict[str, str] = {}
    for text, spec in parsed.items():
        family = [other for other in parsed.values() if other.name == spec.name]
        differing = {k for o in family for k in o.params if len({format_param(p.params.get(k)) for p in family}) > 1}
        given = {key: written(key, value) for key, value in spec.params.items() if key in differing}
        parts = [spec.name, spec.variant, *(f"{key}={value}" for key, value in given.items() if value != "none")]
        labels[text] = ":".join(filter(None, parts)) + "".join(split[text][1:])
    return labels


def written(key: str, value: Param) -> str:
    """The value of a parameter; a step size as attacks are described, ``1/255`` rather than ``0.00392156862745098``."""
    text = format_param(value)
    try:
        quarters = 4 * 255 * float(text) if key == "step" else 0.5
    except ValueError:  # step=none
        return text
    return f"{round(quarters) / 4:g}/255" if abs(quarters - round(quarters)) < 1e-6 else text


def _parse(text: str) -> Spec:
    try:
        return parse_spec(text)
    except UserError:  # a spec of an older grammar still has a label: itself
        return Spec(text)


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide letter, none for an accent that stands on another."""
    spaces = [c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    return len(spaces) + sum(unicodedata.east_asian_width(c) in "WF" for c in spaces)


def sentence(parts: Iterable[str], final: str = "and") -> str:
    """``a, b and c``."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {final} {parts[-1]}" if parts else ""
