"""The name of a method with weights of your own: ``clip:ViT-B-32/openai``, ``ucat:RUN``, ``tecoa:FILE:base=SPEC``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import models, register
from ..types import UserError
from . import source

if TYPE_CHECKING:
    from ..clip.classifier import ClipModel


def identity(
    *, card: dict[str, Any], variant: str | None = None, base: str | None = None, activation: str | None = None
) -> str:
    """The identity of the model that the variant names."""
    return source.identity(_given(variant, card), base=base, activation=activation)


@register.model(identity=identity, training=source.training)
def named(
    *, card: dict[str, Any], variant: str | None = None, base: str | None = None, activation: str | None = None
) -> ClipModel:
    """Load the weights that a variant names; the method's name is what tables and citations call them.

    Args:
        variant: ``ARCH/TAG``, ``hf-hub:ORG/NAME``, ``local-dir:PATH``, a checkpoint or a run folder.
        base: what a checkpoint was fine-tuned from. activation: what it was trained with; see `checkpoint`.

    Raises:
        UserError: there is no variant.
    """
    return source.load(_given(variant, card), base=base, activation=activation)


def _given(variant: str | None, card: dict[str, Any]) -> str:
    if variant is None:
        wanted = ("bundled", card["method"])
        ours = sorted(name for name, other in models.cards().items() if (other.get("source"), other.get("method")) == wanted)
        bundled = f"bundled are {', '.join(ours)}" if ours else "none of this method is bundled"
        raise UserError(f"model '{Path(card['path']).stem}' needs weights: {card['give']}; {bundled}")
    return variant
