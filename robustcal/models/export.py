"""Write a released checkpoint in the project's own form: a run folder that needs no further explanation."""

from __future__ import annotations

import json
from pathlib import Path

from ..clip import weights
from ..clip.untrusted import load_payload
from ..types import UserError
from . import run_folder, source
from .convert import convert


def export_run(
    file: str | Path, out: str | Path, *, base: str, activation: str | None = None, entry: str | None = None
) -> Path:
    """Convert a checkpoint into a run folder, `model.safetensors` beside `card.json`, and return the folder.

    The result is a model spec (``ucat:OUT``) without parameters. The file is read without executing anything, and the
    model is built once to check it against its base.

    Args:
        base: what it was fine-tuned from, a spec or ``ARCH/TAG``. activation, entry: as in `checkpoint`.

    Raises:
        UserError: if the file is refused, does not fit the base, or holds a whole model (then the base's text tower
            would replace its own; keep it as it is, or as an open_clip folder).
    """
    file, out = Path(file), Path(out)
    payload = load_payload(file)
    found = convert(payload, weights.tensors_of(payload, file, entry), str(file))
    if found.whole:
        raise UserError(f"'{file}' holds a whole model, not a fine-tuned image tower; use it with checkpoint:{file}")
    model = source.load_base(base)
    weights.check_activation(activation, model.clip, str(file))
    weights.load_into(model.clip.visual, found.state, str(file))
    built_with = weights.activation(model.clip)
    digest = weights.save_state_dict(model.clip.visual.state_dict(), out / run_folder.TOWER)
    card = {
        "title": f"converted from {file.name}",
        "base": base,
        "activation": activation or (built_with if built_with in ("gelu", "quickgelu") else None),
        "sha256": digest,
        "converted_from": {"file": file.name, "sha256": weights.sha256(file), "as": found.origin},
    }
    (out / run_folder.CARD).write_text(json.dumps(card, indent=2) + "\n")
    return out
