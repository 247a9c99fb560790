"""A plan of what is not on this machine: datasets from their cards, models from their architecture; for ``--dry-run``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .. import registry
from ..clip.classifier import ClipClassifier, ClipModel
from ..datasets.presence import advice, availability
from ..models.hub import reachable
from ..types import Batch, Dataset, Spec, Templates
from .plan import model_identity
from .preflight import leaves
from .samples import Source, make_source, sample_order

#: Timed in the place of a model that is not here and whose spec names no architecture.
USUAL = "ViT-B-32"
#: The folder in which ``robustcal train RECIPE`` leaves a model.
TRAINED, RECIPES = re.compile(r"runs/(.+)-seed-(\d+)"), registry.ROOT / "recipes"


class CardDataset:
    """A dataset as its card describes it, without its images: random pixels, class names and labels stand for them."""

    task, identity = "single", "absent"

    def __init__(self, name: str, card: Mapping[str, Any], size: int):
        self.name = name
        self.templates: Templates = list(card.get("templates", ["{}"]))
        self.classnames: Sequence[str] = [f"class {label}" for label in range(card["classes"])]
        native = card.get("native", 224)
        self.resolution = int(native if card.get("resolution") == "native" else card.get("resolution", native))
        self.labels = np.arange(size) % card["classes"]
        self.ids: Sequence[str] = [f"{name}/{index:05d}" for index in range(size)]

    def read(self, indices: Sequence[int]) -> Batch:
        """Random images: to measure speed with, and nothing else."""
        images = torch.rand(len(indices), 3, self.resolution, self.resolution)
        return Batch(tuple(self.ids[i] for i in indices), images, torch.from_numpy(self.labels[list(indices)]))


class Outline:
    """Stand-ins for `make_plan`. `absent`: spec -> how to get it, for everything that had to be stood in for."""

    def __init__(self) -> None:
        self.absent: dict[str, str] = {}

    def open_source(self, spec: Spec, seed: int) -> Source:
        """The dataset; or, if it is not here, what its card says about it. Nothing is fetched.

        Raises:
            UserError: it cannot be opened, or it is not here and its card does not say how large it is.
        """
        card = registry.datasets.cards().get(spec.name, {})
        name = str(spec.params.get("split") or card.get("split"))
        present, hint = availability(card, name)
        size = card.get("splits", {}).get(name, {}).get("size", card.get("size"))
        if present or not size or "classes" not in card:
            return make_source(spec, seed)
        if "download" in card and reachable():
            hint = "fetched on first use"
        self.absent[str(spec)] = advice(card) if hint.startswith("missing ") else hint
        dataset: Dataset = CardDataset(spec.name, card, size)
        return Source(str(spec), dataset, sample_order(dataset.labels, seed), "absent")

    def identify(self, spec: Spec) -> str:
        """What identifies a model's weights, or that they are not here. Nothing is fetched.

        Raises:
            UserError: a setting of the model is out of range, or it is no model at all.
        """
        hints = [hint for part in leaves(str(spec)) if (hint := how_to_get(part))]
        if hints:
            self.absent[str(spec)] = hints[-1]
        return "absent" if hints else model_identity(spec)

    def architecture(self, spec: str) -> str | None:
        """The open_clip architecture that costs as much as a model; None for one that is here and has to be built.

        What is not here may name it (``clip:ViT-L-14/openai``, ``fare2-vit-l-14``); else it is `USUAL`.
        """
        from ..models.open_clip import architectures

        if spec not in self.absent:
            return None
        named = [arch for arch in architectures() if arch.lower() in spec.lower()]
        return max(named, key=len, default=USUAL)


def how_to_get(spec: str) -> str | None:
    """What to do for the weights that a model's spec names; None if they are here.

    Raises:
        UserError: it names nothing that there could be.
    """
    from ..models.open_clip import published

    parsed = registry.models.spec(spec)
    source = parsed.variant or str(registry.models.cards().get(parsed.name, {}).get("variant", ""))
    recipe = TRAINED.fullmatch(source)
    if recipe and not Path(source).exists() and (RECIPES / f"{recipe[1]}.toml").is_file():
        return f"robustcal train {recipe[1]}{f' --seed {recipe[2]}' if recipe[2] != '0' else ''}"
    here, repository = published(source)
    if here:
        model_identity(parsed)
        return None
    return "fetched on first use" if reachable() else f"fetch {repository} elsewhere, then {parsed.name}:local-dir:PATH"


def random_classifier(arch: str, classes: int) -> torch.nn.Module:
    """A zero-shot classifier of an open_clip architecture, with random weights and a random text head."""
    from open_clip import get_model_config

    from ..models.blueprint import image_side, make_module

    clip, half = make_module(get_model_config(arch), arch), (0.5, 0.5, 0.5)
    side = image_side(clip.get_submodule("visual"), arch)
    model = ClipModel(clip, torch.tensor, size=side, mean=half, std=half, fingerprint="random")
    encode: Callable[[torch.Tensor], torch.Tensor] = clip.encode_image  # type: ignore[assignment]
    with torch.no_grad():
        width = encode(torch.zeros(1, 3, side, side)).shape[1]
    head = F.normalize(torch.randn(classes, width), dim=1)
    return ClipClassifier(model, [f"class {label}" for label in range(classes)], head)
