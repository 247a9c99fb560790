"""Comp-TGA: TGA-ZSR whose map discounts what a negated prompt attends to (complementary attention)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..registry import register
from ..types import UserError
from .encoder import Encoder
from .tga_zsr import attention_map, class_embeddings, map_distance, normalised_tokens, without_gradient


@register.objective(
    negative_template="This is not a photo of a {}", positive=("resolution",), not_negative=("refine", "constrain")
)
def comp_tga(
    student: Encoder, teacher: Encoder, clean: Tensor, adversarial: Tensor, labels: Tensor, *, refine: float = 0.10,
    constrain: float = 0.07, distance: str = "l2", normalise: str = "channels", resolution: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """As `tga_zsr` with the map A (1 - A_not), A_not the map of the prompt "This is not a photo of a {class}".

    The text embeddings of the negated prompts are read from `teacher.negative_head` (C, D); the trainer sets it from
    the `negative_template` this objective is registered with. Parameters: see `tga_zsr`.
    """
    negative = getattr(teacher, "negative_head", None)
    if negative is None:
        raise UserError("objective 'comp-tga' needs teacher.negative_head; train it with 'robustcal train'")
    positive = class_embeddings(student.head, labels)
    negated = class_embeddings(negative, labels)

    def attention(model: Encoder, images: Tensor) -> Tensor:
        tokens, side = normalised_tokens(model, images, normalise), resolution or images.shape[-1]
        return attention_map(tokens, positive, side) * (1 - attention_map(tokens, negated, side))

    with without_gradient():
        original = attention(teacher, clean)
    return {
        "cross_entropy": F.cross_entropy(student(adversarial), labels, reduction="none"),
        "attention_refine": refine * map_distance(attention(student, adversarial), original, distance),
        "attention_constrain": constrain * map_distance(attention(student, clean), original, distance),
    }
