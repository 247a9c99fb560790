"""A model's fingerprint: facts and logits that tell whether it is the model its card describes.

The silent error it is for: weights trained with QuickGELU in a model built with GELU load without complaint and are
a few points worse. Names, shapes and checksums agree; logits do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..clip import weights
from ..clip.classifier import DEFAULT_TEMPLATES
from ..types import UserError

PROMPTS = ("cat", "red circle", "house", "letter A", "tree")
#: Largest difference of a logit that counts as the same, at logit scale 100; smaller scales get a share of it.
TOLERANCE = 0.02


def probe_images(size: int) -> Tensor:
    """Three images in [0, 1] made of closed forms, the same on every machine: (3, 3, size, size) float32."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [0.5 + 0.5 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 0), (0, 2), (3, 3))]
    ring = np.hypot(x - 0.5, y - 0.5)
    disc = [np.where(ring < 0.3, colour, 0.9 - 0.4 * y) for colour in (0.85, 0.15, 0.2)]
    checks = [((8 * x).astype(int) + (8 * y).astype(int)) % 2 * share for share in (1.0, 0.6, 0.3)]
    return torch.from_numpy(np.array([waves, disc, checks], dtype=np.float32))


def fingerprint(model: Any, spec: str | None = None) -> dict[str, Any]:
    """What a card's ``[fingerprint]`` table holds, measured on the CPU in float32.

    Args:
        spec: what to call the model in an error; default: its own name.

    Raises:
        UserError: if the model has no CLIP towers to look at.
    """
    clip: Any = getattr(model, "clip", None)
    if not isinstance(clip, nn.Module) or not hasattr(model, "size"):
        name = spec or getattr(model, "name", type(model).__name__)
        raise UserError(f"model '{name}' is no plain CLIP model; check measures and compares the towers of those only")
    clip.cpu()
    with torch.no_grad():
        logits = model.classifier(PROMPTS, DEFAULT_TEMPLATES)(probe_images(model.size))
    return {
        "architecture": architecture(clip, model.size),
        "activation": weights.activation(clip),
        "logit_scale": round(model.clip.logit_scale.exp().mean().item(), 4),
        "scores": model.scores,
        "weights": tensors_sha256(clip),
        "logits": [[round(value, 4) for value in row] for row in logits.tolist()],
    }


def architecture(clip: Any, size: int) -> str:
    """One line: tower, input size, embedding width, parameters."""
    with torch.no_grad():
        output = clip.visual(torch.zeros(1, 3, size, size))
    width = (output[0] if isinstance(output, tuple) else output).shape[-1]
    count = sum(parameter.numel() for parameter in clip.parameters()) / 1e6
    return f"{type(clip.visual).__name__}, {size} px, {width}-d, {count:.2f} M parameters"


def tensors_sha256(module: nn.Module) -> str:
    """sha256 of a module's tensors by name, in float32: the same whatever file or precision they were stored in."""
    state, digest = module.state_dict(), hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def compare(measured: Mapping[str, Any], stated: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Each stated fact beside the measured one: (name, whether they agree, a line that says both)."""
    rows = []
    for name, value in stated.items():
        own = measured.get(name)
        if name == "logits":
            rows.append(_compare_logits(own, value, measured.get("logit_scale", 100.0)))
        elif isinstance(value, float) and isinstance(own, float):
            agree = abs(own - value) <= 1e-3 * max(1.0, abs(value))
            rows.append((name, agree, f"{own}" if agree else f"{own}, the card says {value}"))
        else:
            said = "" if own == value else f", the card says {_short(value)}"
            rows.append((name, own == value, f"{_short(own)}{said}"))
    return rows


def _compare_logits(own: Any, stated: Any, scale: float) -> tuple[str, bool, str]:
    a, b = np.asarray(own, dtype=float), np.asarray(stated, dtype=float)
    if a.shape != b.shape:
        return "logits", False, f"{a.shape} of them, the card has {b.shape}"
    allowed, worst = TOLERANCE * scale / 100, float(np.abs(a - b).max())
    hint = "" if worst <= allowed else "; other weights, another activation or another preprocessing"
    return "logits", worst <= allowed, f"differ from the card's by at most {worst:.2g} (allowed {allowed:.2g}){hint}"


def as_toml(measured: Mapping[str, Any]) -> str:
    """The ``[fingerprint]`` table to paste into a card."""
    lines = ["[fingerprint]"]
    for name, value in measured.items():
        lines.append(f"{name} = {value!r}".replace("'", '"') if not isinstance(value, str) else f'{name} = "{value}"')
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text
