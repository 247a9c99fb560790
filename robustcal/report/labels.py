"""Short names for long specs: what a table prints in place of ``pgd:steps=20:step=none:restarts=1:...``."""

from __future__ import annotations

from typing import Iterable

from ..registry import parse_spec
from ..types import Spec, UserError, format_param


def short_labels(specs: Iterable[str]) -> dict[str, str]:
    """The shortest distinct label of each canonical spec: its name, its variant, and the parameters that differ.

    A label is itself a spec: with the defaults it leaves out it names the same thing.

    >>> short_labels(["pgd:steps=20:return=best", "pgd:steps=100:return=best", "clean"])["pgd:steps=100:return=best"]
    'pgd:steps=100'
    """
    parsed = {text: _parse(text) for text in dict.fromkeys(specs)}
    labels: dict[str, str] = {}
    for text, spec in parsed.items():
        family = [other for other in parsed.values() if other.name == spec.name]
        variant = len({other.variant for other in family}) > 1 or _is_weights(spec)
        keys = {key for other in family for key in other.params}
        differing = [k for k in keys if len({format_param(o.params.get(k)) for o in family}) > 1]
        parts = [spec.name + (f":{spec.variant}" if variant and spec.variant else "")]
        parts += [f"{k}={format_param(spec.params[k])}" for k in spec.params if k in differing]
        labels[text] = ":".join(parts)
    return labels


def _is_weights(spec: Spec) -> bool:
    # A model's variant names its weights (ViT-B-32/openai, a path): never leave it out.
    return bool(spec.variant) and ("/" in spec.variant or ":" in spec.variant)


def _parse(text: str) -> Spec:
    try:
        return parse_spec(text)
    except UserError:  # a spec of an older grammar still has a label: itself
        return Spec(text)


def sentence(parts: Iterable[str], final: str = "and") -> str:
    """``a, b and c``."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {final} {parts[-1]}" if parts else ""
