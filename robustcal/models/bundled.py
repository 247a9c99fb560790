"""The bundled CLIPs and their fine-tunes, each base a genuine open_clip folder, loaded like any other model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..registry import register
from ..types import UserError
from . import blueprint, folder, source

if TYPE_CHECKING:
    from ..clip.classifier import ClipModel

BUNDLED = Path(__file__).parent / "weights"


def identity(
    *, variant: str | None = None, card: dict[str, Any] | None = None, base: str | None = None, activation: str | None = None
) -> str:
    """Hash of the bundled files the card names, or the identity of the variant that stands in for them."""
    if variant is not None:
        return source.identity(variant, base=base, activation=activation)
    tower = _tower(card)
    return weights.digest(folder.folder_identity(_folder(card)), weights.sha256(tower) if tower else None)


@register.model(identity=identity, training=source.training)
def bundled(
    *, variant: str | None = None, card: dict[str, Any] | None = None, base: str | None = None, activation: str | None = None
) -> ClipModel:
    """Load a bundled CLIP with a card's image tower, or whatever the variant names instead.

    Args:
        variant: ``ARCH/TAG``, ``hf-hub:ORG/NAME``, ``local-dir:PATH``, a checkpoint or a run folder.
        base: what a checkpoint variant was fine-tuned from. activation: what it was trained with; see `checkpoint`.
    """
    if variant is not None:
        return source.load(variant, base=base, activation=activation)
    tower = _tower(card)
    model = blueprint.build(folder.from_local_dir(_folder(card)))
    if tower is not None:
        weights.load_into(model.clip.visual, weights.load_state_dict(tower), str(tower))
        model.fingerprint = weights.digest(model.fingerprint, weights.sha256(tower))
    model.name = Path(card["path"]).stem if card else "bundled"
    return model


def _folder(card: dict[str, Any] | None) -> Path:
    """The open_clip folder of the base that a card belongs to."""
    return BUNDLED / str((card or {}).get("folder", "tiny"))


def _tower(card: dict[str, Any] | None) -> Path | None:
    """The image tower a card names (None: the base itself), after comparing sha256 with the card."""
    name = (card or {}).get("weights", folder.WEIGHTS)
    file, stated = _folder(card) / name, (card or {}).get("sha256")
    if not file.is_file():
        raise UserError(f"bundled weights '{file.name}' are missing; reinstall, or rebuild them: robustcal train")
    if stated and weights.sha256(file) != stated:
        raise UserError(f"bundled weights '{file.name}' differ from their card (sha256); reinstall robustcal")
    return None if name == folder.WEIGHTS else file
