"""Post-hoc temperature scaling of any CLIP model: its logits divided by t, given or fitted on clean source data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..clip import weights
from ..registry import datasets, models, register
from ..scaling import best_temperature
from ..types import Dataset, UserError
from . import run_folder, source

if TYPE_CHECKING:
    from torch import Tensor

    from ..clip.classifier import ClipModel

FITS = ("clean-source",)


def identity(
    *, model: str, t: float | None = None, fit: str = "clean-source", data: str | None = None,
    samples: int = 1000, seed: int = 0,
) -> str:  # fmt: skip
    """Identity of the model below and of everything that decides the temperature."""
    below = source.spec_identity(model)
    if t is not None:
        return weights.digest("temperature", below, check_temperature(t))
    if samples < 1:
        raise UserError(f"temperature: samples={samples} leaves nothing to fit on; give 1 or more")
    spec = source_data(model, fit, data)
    content = getattr(datasets.build(spec), "identity", "")
    return weights.digest("temperature", below, fit, datasets.spec(spec), content, samples, seed)


@register.model(identity=identity, parts=("model",))
def temperature(
    *, model: str, t: float | None = None, fit: str = "clean-source", data: str | None = None,
    samples: int = 1000, seed: int = 0,
) -> ClipModel:  # fmt: skip
    """The model with its logits divided by t (Guo et al. 2017). Accuracy is unchanged; confidence is not.

    Args:
        model: spec of the model to scale.
        t: the temperature, greater than 0; above 1 is less confident. Default: fitted.
        fit: "clean-source": minimise the negative log-likelihood on unattacked images of the data the model was
            fine-tuned on. Where that set is evaluated too, some of its images were looked at; a report notes it.
        data: dataset spec to fit on; default: the `source_data` of the model's card or training run.
        samples: number of images, a seeded subset.
    """
    scaled = source.load_base(model)
    if not hasattr(scaled, "clip"):
        raise UserError(f"temperature:model={model}: only CLIP models have a logit scale to change")
    if t is None:
        dataset = datasets.build(source_data(model, fit, data))
        t = fit_temperature(*clean_logits(scaled, dataset, samples, seed), model)
    check_temperature(t)
    scaled.clip.logit_scale.data -= math.log(t)
    bias = getattr(scaled.clip, "logit_bias", None)
    if bias is not None:
        bias.data /= t
    scaled.fingerprint = weights.digest(scaled.fingerprint, "temperature", t)
    scaled.name, scaled.temperature = f"{scaled.name} at temperature {t:.4g}", t
    return scaled


def check_temperature(t: float) -> float:
    """`t` itself. Raises `UserError` unless it is a positive, finite number."""
    if not (math.isfinite(t) and t > 0):
        raise UserError(f"temperature t={t} is not valid; it is a number greater than 0")
    return t


def source_data(model: str, fit: str, data: str | None) -> str:
    """The dataset spec to fit on: the given one, or what the model's card or run says it was fine-tuned on.

    Raises:
        UserError: if neither says.
    """
    if fit not in FITS:
        raise UserError(f"fit={fit} is unknown; it is {', '.join(FITS)}, or give the temperature itself with t=")
    stated = data or _stated(model)
    if not stated:
        raise UserError(f"temperature:model={model} does not know the model's source data; name it with data=DATASET")
    return stated


def _stated(model: str) -> str | None:
    if not source.is_spec(model):
        return None
    spec = models.spec(model)
    if spec.variant is None:
        return (models.cards().get(spec.name) or {}).get("source_data")
    folder = Path(spec.variant).expanduser()
    return json.loads((folder / run_folder.CARD).read_text()).get("source_data") if folder.is_dir() else None


def clean_logits(model: Any, dataset: Dataset, samples: int, seed: int, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Logits (n, C) and labels (n,) of a seeded subset of a dataset's clean images."""
    import torch

    if dataset.task != "single":
        raise UserError(f"'{dataset.name}' is multi-label; a temperature is fitted on one label per image")
    classifier = model.classifier(dataset.classnames, dataset.templates)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset.labels))[:samples])
    device = classifier.head.device
    with torch.no_grad():
        parts = [dataset.read(chosen[i : i + batch].tolist()) for i in range(0, len(chosen), batch)]
        logits = torch.cat([classifier(part.images.to(device)).double().cpu() for part in parts])
    return logits, torch.cat([part.labels.cpu() for part in parts])


def fit_temperature(logits: Tensor, labels: Tensor, name: str = "the model") -> float:
    """The temperature that minimises the negative log-likelihood of `labels` (n,) under softmax(logits / t).

    Raises:
        UserError: if there is none, naming the model and saying why: see `scaling.best_temperature`.
    """
    logits = logits.double()

    def expected(t: float) -> float:
        return float(((logits / t).softmax(1) * logits).sum(1).mean())

    label, largest = logits.gather(1, labels[:, None]).mean().item(), logits.amax(1).mean().item()
    t, why = best_temperature(expected, label, largest)
    if why:
        raise UserError(f"no temperature fits '{name}': {why}; give one with t=, or other data with data=")
    return t
