"""What is tried before anything is computed or written: that models load, and that attacks take their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from .. import registry
from ..cell import Cell
from ..models.source import is_checkpoint, is_spec
from ..noise import Noise
from ..types import UserError, reason_of
from .plan import Plan
from .run import make_attack


def preflight(specs: Iterable[str]) -> dict[str, str]:
    """Build each model named by `specs`, one at a time, and let it go again: {spec: why it cannot be loaded}.

    Bundled models are left out: their sha256 was compared when the plan was made. Of models made of models only the
    parts are built, so that nothing is fitted twice.
    """
    found: dict[str, str] = {}
    tried = cache(why_not)
    for text in dict.fromkeys(specs):
        for leaf in leaves(text):
            if reason := tried(leaf):
                found.setdefault(text, reason)
    return found


def why_not(text: str) -> str | None:
    """Why a model cannot be loaded: another architecture, a damaged or malicious file ...; None if it can, or is bundled."""
    spec = registry.models.spec(text)
    if spec.variant is None and registry.models.cards().get(spec.name, {}).get("source", spec.name) == "bundled":
        return None
    try:
        model = registry.models.build(spec)
    except Exception as error:
        return reason_of(error)
    if callable(getattr(model, "classifier", None)) and isinstance(getattr(model, "fingerprint", None), str):
        return None
    return f"model '{text}' is a {type(model).__name__} without .classifier(classnames, templates) or .fingerprint"


def leaves(text: str) -> Iterator[str]:
    """The model specs that have weights of their own inside a spec: itself, or the parts its plugin declares.

    A part may also be a bare variant (``ViT-B-32/openai``), which stands for ``open-clip:`` or ``checkpoint:`` of it.
    """
    if not is_spec(text):
        yield f"{'checkpoint' if is_checkpoint(text) else 'open-clip'}:{text}"
        return
    plugin, arguments = registry.models.arguments(registry.models.spec(text))
    parts = [arguments[name] for name in plugin.meta.get("parts", ()) if arguments.get(name)]
    if not parts:
        yield text
    for part in parts:
        yield from leaves(str(part))


class Untouched(torch.nn.Module):
    """A classifier that ends an attack at its first look: whatever it checks before that has passed."""

    fingerprint, scale, bias = "untouched", torch.ones(()), torch.zeros(())

    def __init__(self, classnames: Any):
        super().__init__()
        self.classnames, self.num_classes = classnames, len(classnames)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise LookupError


def try_attacks(plan: Plan) -> dict[str, str]:
    """Start every attack of the plan on one grey image of each data set, up to its first look at the classifier.

    So that a parameter out of range, or an attack that this number or kind of labels does not suit, is known before a
    folder is made and a model loaded. Attacks check their parameters before they look.

    Returns:
        {cell id: what the attack says}, for all cells of such an attack and data set.
    """
    said: dict[tuple[str, str, str], str | None] = {}
    refused = {}
    for cell in plan.cells:
        key = (cell.attack, cell.dataset, cell.threat.norm)
        if key not in said:
            said[key] = refusal(cell, plan)
        if reason := said[key]:
            refused[cell.id] = reason
    return refused


def refusal(cell: Cell, plan: Plan) -> str | None:
    """What a cell's attack says when it is started on one grey image; None if it goes as far as to look."""
    source, classifier = plan.sources[cell.dataset], Untouched(cell.classnames).eval()
    label = torch.as_tensor(np.asarray(source.dataset.labels)[source.order[:1]])
    label = label.float() if label.ndim == 2 else label
    image = torch.full((1, 3, cell.resolution, cell.resolution), 0.5)
    try:
        attack = make_attack(cell.attack, lambda spec: classifier)
        attack(classifier, image, label, cell.threat, Noise(cell.seed, ["untouched"]))
    except UserError as error:
        return f"attack '{cell.attack.partition(':')[0]}' on '{cell.dataset}': {error}"
    except Exception:  # it has looked; or it is a user's own and wants what only a real classifier has: the sweep will tell
        return None
    return None
