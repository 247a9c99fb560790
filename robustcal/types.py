"""The nouns of robustcal. Imports nothing from the package, and torch only for annotations."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

Param = bool | int | float | str | None
#: Texts with ``{}`` for the class name, which every class shares; or one list of texts for each class.
Templates = Sequence[str] | Sequence[Sequence[str]]


class UserError(Exception):
    """A mistake the user can mend: printed as one line, exit status 2, never a traceback."""


def reason_of(error: Exception) -> str:
    """What went wrong as one line; of an unforeseen error also where."""
    what = " ".join(str(error).split())
    if isinstance(error, UserError):
        return what
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {what[:300]} ({where.filename}:{where.lineno})"


def parse_radius(text: str | float | int) -> Fraction:
    """Read a perturbation radius: ``1/255``, ``0.5/255``, ``0.03`` or ``0``. Exact, so that equal radii have equal cells.

    A decimal within 1e-12 of a multiple of 0.001/255 is that fraction: ``4 / 255`` in Python is ``4/255``.

    Raises:
        UserError: if `text` is not a finite number >= 0.
    """
    try:
        above, slash, below = (repr(float(text)) if isinstance(text, float) else str(text).strip()).partition("/")
        value = Fraction(above) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"eps '{text}' is not a number; write it like 1/255 or 0.0157") from None
    if value < 0:
        raise UserError(f"eps '{text}' is negative; a radius is 0 or more, like 1/255")
    near = Fraction(round(value * 255_000), 255_000)
    return near if not slash and near and abs(value - near) <= Fraction(1, 10**12) else value


@lru_cache(4096)
def radius_text(radius: str | float | Fraction) -> str:
    """A radius as it is written everywhere but in identities: over 255 (``3/255``, ``0.5/255``), never ``1/85``.

    A multiple of 0.001/255 that is no short decimal itself is over 255 too (``0.25/255``); any other is a decimal, none
    is ``0``. `parse_radius` is the way back.

    >>> print(*map(radius_text, ("1/85", "1/510", "0.25/255", "0.03", "0")))
    3/255 0.5/255 0.25/255 0.03 0
    """
    value = radius if isinstance(radius, Fraction) else parse_radius(radius)
    over, short = value * 255, 10**9 % value.denominator == 0
    if value and (2 % over.denominator == 0 or (1000 % over.denominator == 0 and not short)):
        return f"{float(over):.15g}/255"
    return f"{float(value):.9g}"


@dataclass(frozen=True)
class Spec:
    """One parsed spec string: ``name[:variant][:key=value]...``."""

    name: str
    variant: str | None = None
    params: Mapping[str, Param] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        parts = [self.name] + ([self.variant] if self.variant else [])
        return ":".join(parts + [f"{key}={format_param(value)}" for key, value in self.params.items()])


def format_param(value: Param) -> str:
    """The text of a parameter in a canonical spec: ``true``, ``none``, ``20``, ``0.25``, ``text``."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Batch:
    """Samples side by side: `images` (N, 3, H, W) float32 in [0, 1]; `labels` (N,) int64 or (N, C) multi-hot float."""

    ids: tuple[str, ...]
    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


@runtime_checkable
class Dataset(Protocol):
    """What a dataset plugin returns. Building one is cheap; images are decoded in `read` only."""

    name: str  #: registered name, the first part of every sample id
    classnames: Sequence[str]  #: index = label
    templates: Templates  #: prompts with ``{}`` for the class name
    task: str  #: "single", "multi" (multi-hot labels) or "ood" (multi-hot labels without a class)
    resolution: int  #: side in pixels at which images are attacked: part of the threat model
    labels: np.ndarray  #: (n,) int64, or (n, C) multi-hot; known without decoding an image
    ids: Sequence[str]  #: stable sample ids such as ``cifar10/test/00042``

    def read(self, indices: Sequence[int]) -> Batch:
        """Decode these samples, in this order. An image that does not decode raises `UserError` naming it."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """All that an attack sees: images (N, 3, H, W) in [0, 1] -> logits (N, C), float32, at the model's own scale."""

    num_classes: int
    classnames: Sequence[str]
    fingerprint: str

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


@runtime_checkable
class Model(Protocol):
    """What a model plugin returns: anything that can be given class names."""

    fingerprint: str  #: changes when the weights change

    def classifier(self, classnames: Sequence[str], templates: Templates) -> Classifier: ...


@dataclass(frozen=True)
class Threat:
    """What the attacker may do, and which iterate counts.

    `goal`: untargeted | targeted | confidence-up | confidence-down | miscalibration | random-confidence | calibration-gap |
    look-known | look-unknown.
    `returns`, the return rule: "last" (last iterate), "best" (highest-loss iterate), "success-else-clean" (clean image
    where the attack failed), "nearest-else-clean" (the same, with the nearest misclassified image) or "success-else-last"
    (first misclassified iterate, else the last): with these three accuracy stays valid, calibration does not.
    """

    eps: float
    norm: str = "linf"
    low: float = 0.0
    high: float = 1.0
    resolution: int | None = None
    goal: str = "untargeted"
    returns: str = "last"


#: Columns of the records, one row per sample. `Records` is a mapping from these names to arrays of equal length.
RECORD_COLUMNS: dict[str, str] = {
    "id": "stable sample id",
    "label": "class index; -1 where the task is multi-label (then `labels` holds the positive classes)",
    "prediction": "argmax of the logits of the returned image, re-predicted in fp32",
    "correct": "prediction == label",
    "confidence": "largest softmax probability at the model's own logit scale",
    "label_probability": "softmax probability of the label",
    "entropy": "predictive entropy of the softmax, nats",
    "top_logits": "largest logits, descending, at most 1024 of them",
    "top_classes": "their class indices",
    "rest_logit": "log-sum-exp of the logits not in top_logits; -inf if none",
    "brier": "sum over classes of (probability - one-hot)^2, in [0, 2]",
    "dirichlet_confidence": "largest Dirichlet mean, softmax(cosine / 0.07): the second, named reading",
    "log_alpha0": "natural log of the total Dirichlet evidence",
    "au": "aleatoric uncertainty, nats",
    "log_eu": "natural log of the epistemic uncertainty C / (alpha_0 + C)",
    "linf": "largest absolute pixel change",
    "l2": "Euclidean norm of the pixel change",
    "forwards": "forward passes spent on this sample",
    "backwards": "input gradients spent on this sample",
    "zero_gradients": "input gradients of this sample that were zero everywhere",
    "flags": "comma-separated validity flags of this sample",
}

Records = Mapping[str, "np.ndarray"]
