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


def identity(*, card: dict[str, Any], base: str | None = None, activation: str | None = None) -> str:
    """Hash of the bundled files the card names."""
    tower = _tower(card, base, activation)
    return weights.digest(folder.folder_identity(_folder(card)), weights.sha256(tower) if tower else None)


@register.model(identity=identity, training=source.training)
def bundled(*, card: dict[str, Any], base: str | None = None, activation: str | None = None) -> ClipModel:
    """Load a bundled CLIP with a card's image tower. There is nothing to choose.

    Raises:
        UserError: files that are missing or damaged; `base` or `activation`, which go with weights of one's own.
    """
    tower = _tower(card, base, activation)
    model = blueprint.build(folder.from_local_dir(_folder(card)))
    if tower is not None:
        weights.load_into(model.clip.visual, weights.load_state_dict(tower), str(tower))
        model.fingerprint = weights.digest(model.fingerprint, weights.sha256(tower))
    model.name = Path(card["path"]).stem
    return model


def _folder(card: dict[str, Any]) -> Path:
    """The open_clip folder of the base that a card belongs to."""
    return BUNDLED / str(card["folder"])


def _tower(card: dict[str, Any], base: str | None, activation: str | None) -> Path | None:
    """The image tower a card names (None: the base itself), after comparing sha256 with the card."""
    if base or activation:
        name, method = Path(card["path"]).stem, card["method"]
        raise UserError(f"'{name}' is bundled whole: base= and activation= go with weights of yours, {method}:FILE:base=SPEC")
    file = _folder(card) / card["weights"]
    if not file.is_file():
        raise UserError(f"bundled weights '{file.name}' are missing; reinstall, or rebuild them: robustcal train")
    if weights.sha256(file) != card["sha256"]:
        raise UserError(f"bundled weights '{file.name}' differ from their card (sha256); reinstall robustcal")
    return None if card["weights"] == folder.WEIGHTS else file
