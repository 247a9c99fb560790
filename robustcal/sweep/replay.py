"""A few samples of a finished cell attacked once more: records keep no images, and attacks are deterministic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .. import registry
from ..cell import Cell
from ..types import Batch, Records, UserError
from .declared import attack_meta
from .hardware import pick_device
from .plan import Plan, model_identity
from .run import SEARCH_DTYPES, attack_and_judge, make_attack, to_device
from .worker import Worker


@dataclass(frozen=True)
class Replay:
    """Images (K, 3, H, W) in [0, 1] before and after the attack, and what the model says of the latter (K,)."""

    clean: np.ndarray
    attacked: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray


def replay(cell: Cell, ids: Sequence[str], device: str = "auto") -> Replay:
    """Read these samples of a cell again and attack them as the cell says, in one batch.

    Noise is keyed by sample and losses are summed, so images are those of the sweep up to floating point. An attack that
    looks at its batch, and other hardware, may give others: compare the predictions with the record.

    Raises:
        UserError: model, data or attack are not the ones of the record any more, or are not here.
    """
    unchanged(cell)
    device = pick_device(device)
    dataset = registry.datasets.build(cell.dataset)
    places = {name: index for index, name in enumerate(dataset.ids)}
    gone = [name for name in ids if name not in places]
    if gone or str(getattr(dataset, "identity", "")) != cell.identity.data:
        raise UserError(f"dataset '{cell.dataset}' has changed since the record was made; images of it would not be those")
    batch = to_device(dataset.read([places[name] for name in ids]), device)
    worker = Worker(Plan((cell,), {}), device)
    attacked, columns = attack_again(cell, batch, lambda spec: worker.classifier(spec, cell))
    images = (batch.images.cpu().numpy(), attacked.cpu().numpy())
    return Replay(*images, np.asarray(columns["prediction"]), np.asarray(columns["confidence"]))


def attack_again(cell: Cell, batch: Batch, classifier_of: Callable[[str], Any]) -> tuple[Tensor, Records]:
    """Attack and judge any samples of a cell as the cell says: images (K, 3, H, W), and the columns of their records.

    Args:
        classifier_of: spec of the model, or of the surrogate, -> its classifier for the cell's classes and prompts.
    """
    return attack_and_judge(
        make_attack(cell.attack, classifier_of), classifier_of(cell.model), batch, cell.threat,
        seed=cell.seed, search=SEARCH_DTYPES[cell.precision], keeps_label=cell.keeps_label,
    )  # fmt: skip


def unchanged(cell: Cell) -> None:
    """Raise `UserError` where model or attack are not what they were when the cell was recorded."""
    kept = cell.identity
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec(cell.attack))
    version = attack_meta(plugin, arguments).get("version", 1)
    if (version, plugin.source_sha256) != (kept.attack_version, kept.attack_file):
        versions = f"version {kept.attack_version}, now {version}"
        raise UserError(f"attack '{plugin.name}' has changed since the record was made ({versions})")
    if model_identity(registry.models.spec(cell.model)) != kept.weights:
        raise UserError(f"model '{cell.model}' has changed since the record was made: its weights are others")
