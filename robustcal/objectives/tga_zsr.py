"""TGA-ZSR: cross-entropy plus distances between text-guided attention maps (Yu et al., NeurIPS 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from ..types import UserError
from .encoder import Encoder


@register.objective(positive=("resolution",), not_negative=("refine", "constrain"))
def tga_zsr(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, refine: float = 0.08,
    constrain: float = 0.05, distance: str = "l2", normalise: str = "channels", resolution: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """CE(l(xa), y) + refine |A(xa) - A_0(x)| + constrain |A(x) - A_0(x)|, A the attention map of the true class.

    Args:
        refine: weight of the distance between the student's adversarial and the teacher's clean map (Alpha).
        constrain: weight of the distance between the student's clean and the teacher's clean map (Beta).
        distance: "l2" (norm, not squared), "l1" (mean absolute difference) or "cos" (1 - cosine) of flattened maps.
        normalise: "channels" makes every score a cosine; "tokens" divides each channel by its norm over the tokens,
            class token included, as the released code does.
        resolution: side in pixels of the maps; default: the side of the images. An l2 distance grows with it, and the
            published weights belong to 224.
    """

    def attention(model: Encoder, images: Tensor) -> Tensor:
        tokens = normalised_tokens(model, images, normalise)
        return attention_map(tokens, class_embeddings(student.head, labels), resolution or images.shape[-1])

    with without_gradient():
        original = attention(teacher, clean)
    return {
        "cross_entropy": F.cross_entropy(student(adversarial), labels, reduction="none"),
        "attention_refine": refine * map_distance(attention(student, adversarial), original, distance),
        "attention_constrain": constrain * map_distance(attention(student, clean), original, distance),
    }


@contextmanager
def without_gradient() -> Iterator[None]:
    """No gradients, yet the attention kernel that is used with them.

    torch has another for inference, whose rounding differs. Where student and teacher are still the same, at the first
    step, the gradient of the un-squared norm of that rounding is a unit vector; of 0 it is 0.
    """
    inference = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(inference)


def class_embeddings(head: Tensor, labels: Tensor) -> Tensor:
    """Text embedding of each sample's own class: (N, D)."""
    if labels.ndim != 1:
        raise UserError("attention maps follow one class per image; use a dataset of task 'single'")
    return head[labels]


def normalised_tokens(model: Encoder, images: Tensor, normalise: str) -> Tensor:
    """Spatial tokens (N, T, D), at least float32, scaled per token ("channels") or per channel ("tokens")."""
    tokens = model.tokens(images)
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    if normalise == "channels":
        return F.normalize(tokens, dim=-1)
    if normalise != "tokens":
        raise UserError(f"normalise '{normalise}' is unknown; it is channels or tokens")
    every = torch.cat([model.embed(images).unsqueeze(1).to(tokens.dtype), tokens], 1)
    return F.normalize(every, dim=1)[:, 1:]


def attention_map(tokens: Tensor, text: Tensor, side: int) -> Tensor:
    """Scores of tokens (N, T, D) for texts (N, D), min-max per sample, resized, flat: (N, side^2) in [0, 1]."""
    scores = (tokens * text.unsqueeze(1)).sum(-1)
    grid = math.isqrt(scores.shape[1])
    if grid * grid != scores.shape[1]:
        raise UserError(f"{scores.shape[1]} image tokens are not a square grid; attention maps need one")
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    scaled = (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)
    maps = scaled.view(-1, 1, grid, grid)
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False).flatten(1)


def map_distance(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distance between flattened maps: two (N, P) -> (N,)."""
    if distance == "l2":
        length: Tensor = torch.linalg.vector_norm(a - b, dim=1)
        return length
    if distance == "l1":
        return (a - b).abs().mean(1)
    if distance == "cos":
        return 1 - F.cosine_similarity(a, b, dim=1)
    raise UserError(f"distance '{distance}' is unknown; it is l2, l1 or cos")
