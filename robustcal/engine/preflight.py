"""Load every model of a sweep once before anything is computed, so that a bad checkpoint does not end it half-way."""

from __future__ import annotations

from typing import Iterable, Iterator

from .. import registry
from ..models.source import is_spec


def preflight(specs: Iterable[str]) -> None:
    """Build each model named by `specs`, one at a time, and let it go again.

    Bundled models are left out: their sha256 was compared when the plan was made. Of models made of models only the
    parts are built, so that nothing is fitted twice.

    Raises:
        UserError: the first model that cannot be loaded: another architecture, a damaged or malicious file ...
    """
    for spec in dict.fromkeys(leaf for text in specs for leaf in leaves(str(text))):
        if not is_bundled(spec):
            registry.models.build(spec)


def leaves(text: str) -> Iterator[str]:
    """The model specs that have weights of their own inside a spec: itself, or the parts its plugin declares.

    A part may also be a bare variant (``ViT-B-32/openai``), which stands for ``open-clip:`` or ``checkpoint:`` of it.
    """
    from ..models.source import is_checkpoint

    if not is_spec(text):
        yield f"{'checkpoint' if is_checkpoint(text) else 'open-clip'}:{text}"
        return
    plugin, arguments = registry.models.arguments(registry.models.spec(text))
    parts = [arguments[name] for name in plugin.meta.get("parts", ()) if arguments.get(name)]
    if not parts:
        yield text
    for part in parts:
        yield from leaves(str(part))


def is_bundled(text: str) -> bool:
    """Whether a spec names weights that ship with the package."""
    spec = registry.models.spec(text)
    card = registry.models.cards().get(spec.name, {})
    return spec.variant is None and card.get("source", spec.name) == "tiny"
