"""The loss of pre-training: images against captions, and against the prompts of sets of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SCALE = 4.6052  # ln 100, where CLIP clamps its logit scale


class ContrastiveStep(nn.Module):
    """The loss as a module, so that distributed training sees one forward per backward."""

    def __init__(self, clip: nn.Module, contrastive: float, classes: float):
        super().__init__()
        self.clip: Any = clip
        self.contrastive, self.classes = contrastive, classes

    def forward(self, images: Tensor, tokens: Tensor, families: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, LARGEST_SCALE)
        scale = self.clip.logit_scale.exp()
        image = F.normalize(self.clip.encode_image(images), dim=-1)
        captions = [tokens] if self.contrastive else []
        lengths = [len(part) for part in captions] + [len(texts) for texts, _ in families.values()]
        unique, which = torch.unique(
            torch.cat([*captions, *(texts for texts, _ in families.values())]), dim=0, return_inverse=True
        )  # a caption that is also a prompt is encoded once
        text = list(F.normalize(encode_text(self.clip, unique), dim=-1)[which].split_with_sizes(lengths))
        parts = {}
        if self.contrastive:
            parts["contrastive"] = self.contrastive * contrastive(image, text.pop(0), tokens, scale)
        if self.classes and families:
            terms = [
                F.cross_entropy(scale * image @ head.t(), labels, ignore_index=-1, reduction="none")
                for head, (_, labels) in zip(text, families.values(), strict=True)
            ]
            known = torch.stack([labels >= 0 for _, labels in families.values()]).sum(0).clamp(min=1)
            parts["classes"] = self.classes * torch.stack(terms).sum(0) / known
        return parts


def encode_text(clip: Any, tokens: Tensor) -> Tensor:
    """As open_clip's `clip.encode_text`, without the columns that are padding in all rows: (n, D).

    Attention is causal and the embedding is read at the end token, so that what stands behind it changes nothing.
    """
    length = int((tokens != 0).any(0).sum())
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    found: Tensor = x[torch.arange(len(x), device=x.device), tokens.argmax(-1)] @ clip.text_projection
    return found


def contrastive(image: Tensor, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss of this process's rows against the samples of all processes: (n,).

    Args:
        image, text: unit embeddings (n, D). tokens: (n, L), equal rows are the same caption: shared positives.
        scale: the logit scale.
    """
    images, texts, captions = _gather(image), _gather(text), _gather(tokens)
    same = (tokens[:, None] == captions[None]).all(-1).to(image.dtype)
    target = same / same.sum(1, keepdim=True)
    one = F.cross_entropy(scale * image @ texts.t(), target, reduction="none")
    other = F.cross_entropy(scale * text @ images.t(), target, reduction="none")
    return (one + other) / 2


class _Gather(torch.autograd.Function):
    """The rows of all processes side by side; backward sums every process's gradient of this process's rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _gather(rows: Tensor) -> Tensor:
    """The rows of all processes, with gradients flowing back to each; every process holds as many rows."""
    alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    return rows if alone else _Gather.apply(rows)
