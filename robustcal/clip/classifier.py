"""CLIP towers plus a cached text head -> one nn.Module from images in [0, 1] to logits.

Resizing and normalisation live inside, so that an attack works on plain pixels at the threat model's resolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..types import Templates, UserError
from . import tower
from .alike import alike
from .prompts import prompts_hash, sentences, tokens_of

DEFAULT_TEMPLATES = ("This is a photo of a {}",)


if TYPE_CHECKING:

    class Towers(nn.Module):
        """What open_clip's CLIP, CustomTextCLIP and CoCa have in common, for the type checker; they have no types."""

        visual: nn.Module
        logit_scale: nn.Parameter
        logit_bias: nn.Parameter | None

        def encode_text(self, ids: Tensor) -> Tensor: ...


class ClipModel:
    """A CLIP model before it is told any class names.

    Args:
        clip: an open_clip model with `encode_image`, `encode_text`, `visual` and `logit_scale`.
        tokenizer: list of texts -> token ids (n, context).
        size: side in pixels the image tower expects.
        mean, std: per-channel normalisation of the image tower.
        fingerprint: identifies the weights (a sha256).
        scores: "softmax", or "sigmoid" where the model was trained with a sigmoid loss, so that its softmax is a
            reading of ours, not the model's own probability.
        notes: sentences on what was filled in when the weights were read; `robustcal check` shows them.
    """

    def __init__(
        self, clip: nn.Module, tokenizer: Callable[..., Tensor], *, size: int, mean: Sequence[float],
        std: Sequence[float], fingerprint: str, scores: str = "softmax", name: str = "clip", notes: Sequence[str] = (),
    ):  # fmt: skip
        self.clip = cast("Towers", clip.eval().requires_grad_(False))
        self.temperature = 1.0  # what a transform divided the logits by
        self.tokenizer, self.size, self.mean, self.std = tokenizer, size, tuple(mean), tuple(std)
        self.fingerprint, self.scores, self.name, self.notes = fingerprint, scores, name, tuple(notes)
        self._heads: dict[str, Tensor] = {}

    def classifier(self, classnames: Sequence[str], templates: Templates = DEFAULT_TEMPLATES) -> ClipClassifier:
        """A zero-shot classifier for these classes; `templates` as in `prompts.sentences`."""
        made = ClipClassifier(self, classnames, self.text_head(classnames, templates))
        made.head_for = lambda other: self.text_head(classnames, other)
        return made

    @torch.no_grad()
    def text_head(self, classnames: Sequence[str], templates: Templates) -> Tensor:
        """Unit text embedding of each class, averaged over its texts: (C, D) float32. Built once per prompt set."""
        key = prompts_hash(classnames, templates)
        if key not in self._heads:
            device = next(self.clip.parameters()).device
            rows, of_class = [], sentences(classnames, templates)
            for column in itertools.zip_longest(*of_class):  # the first text of each class, the second ...
                present = [label for label, text in enumerate(column) if text is not None]
                texts = [column[label] for label in present]
                chunks = [texts[i : i + 256] for i in range(0, len(texts), 256)]
                tokens = [tokens_of(self.tokenizer, chunk, self.name).to(device) for chunk in chunks]
                encoded = [self.clip.encode_text(ids).float() for ids in tokens]
                unit = F.normalize(torch.cat(encoded), dim=-1)
                rows.append(unit.new_zeros(len(column), unit.shape[1]).index_copy_(0, torch.tensor(present, device=device), unit))
            counts = torch.tensor([len(texts) for texts in of_class], device=device)
            self._heads[key] = F.normalize(torch.stack(rows).sum(0) / counts[:, None], dim=-1)
        return self._heads[key]


class ClipClassifier(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits (N, C) float32 at the model's own logit scale. Always in eval mode.

    `alike`: sentences about classes that it cannot tell apart (see `alike.alike`); empty where there are none. `head_for`:
    other templates -> the text embeddings (C, D) that they give the same classes.
    """

    head_for: Callable[[Templates], Tensor]
    head: Tensor
    scale: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: ClipModel, classnames: Sequence[str], head: Tensor):
        super().__init__()
        self.visual: nn.Module = model.clip.visual
        self.classnames, self.num_classes = tuple(classnames), len(classnames)
        self.alike = tuple(str(finding) for finding in alike(classnames, head))
        self.size, self.scores, self.fingerprint = model.size, model.scores, model.fingerprint
        self.register_buffer("head", head)
        self.register_buffer("scale", model.clip.logit_scale.detach().float().exp())
        bias = getattr(model.clip, "logit_bias", None)
        self.register_buffer("bias", torch.zeros(()) if bias is None else bias.detach().float())
        self.register_buffer("mean", torch.tensor(model.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(1, 3, 1, 1))
        self.to(head.device).eval()

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize to the tower's size (bicubic, no antialiasing, as the literature does) and normalise."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"images must be (N, 3, H, W), not {tuple(images.shape)}")
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", align_corners=False)
        return (images - self.mean) / self.std

    def embed(self, images: Tensor) -> Tensor:
        """Image embedding before normalisation: (N, D)."""
        pixels = self.preprocess(images)
        if tower.is_plain(self.visual):
            return tower.class_embedding(self.visual, pixels)
        output = self.visual(pixels)
        pooled: Tensor = output[0] if isinstance(output, tuple) else output
        return pooled

    def cosines(self, images: Tensor) -> Tensor:
        """Cosine similarity with each class's text embedding: (N, C) float32 in [-1, 1]."""
        embedding = self.embed(images).float()
        with torch.autocast(images.device.type, enabled=False):  # bf16 would round the logits by up to 0.1
            return F.normalize(embedding, dim=-1) @ self.head.t()

    def forward(self, images: Tensor) -> Tensor:
        return self.cosines(images) * self.scale + self.bias

    def tokens(self, images: Tensor) -> Tensor:
        """Spatial tokens in the joint space, class token left out: (N, T, D)."""
        return spatial_tokens(self.visual, self.preprocess(images))

    def replica(self) -> ClipClassifier:
        """An independent copy whose image tower can be trained while this one stays frozen."""
        import copy

        return copy.deepcopy(self)


def spatial_tokens(visual: Any, pixels: Tensor) -> Tensor:
    """Patch tokens of a ViT, or projected spatial features of a ModifiedResNet: (N, T, D).

    For a ResNet each position goes through the attention pool's value and output projections, which is what the
    pooled embedding averages.
    """
    if hasattr(visual, "attnpool"):
        x = _last_stage(visual.layer4, visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
        flat = x.flatten(2).transpose(1, 2)
        pooled: Tensor = visual.attnpool.c_proj(visual.attnpool.v_proj(flat))
        return pooled
    if hasattr(visual, "transformer"):
        before, visual.output_tokens = visual.output_tokens, True
        try:
            _, tokens = visual(pixels)
        finally:
            visual.output_tokens = before
        projected: Tensor = tokens if visual.proj is None else tokens @ visual.proj
        return projected
    raise UserError(f"image tower {type(visual).__name__} has no spatial tokens; use a ViT or ModifiedResNet")


def _last_stage(stage: Any, x: Tensor) -> Tensor:
    """The last stage of a ModifiedResNet; where it would pool a 2x2 map to one position, without that pooling.

    Its first block pools between linear maps, so the map left unpooled is the one whose average goes on.
    """
    out: Tensor
    if min(x.shape[-2:]) > 2:
        out = stage(x)
        return out
    first, *others = stage
    inside = first.act2(first.bn2(first.conv2(first.act1(first.bn1(first.conv1(x))))))
    around = x
    for layer in first.downsample if first.downsample is not None else ():
        around = around if isinstance(layer, nn.AvgPool2d) else layer(around)
    out = first.act3(first.bn3(first.conv3(inside)) + around)
    for block in others:
        out = block(out)
    return out


class LogitClassifier(nn.Module):
    """Any module from images in [0, 1] to logits, given class names: for networks that are not CLIP models."""

    def __init__(self, module: nn.Module, classnames: Sequence[str], fingerprint: str = ""):
        super().__init__()
        self.module = module.requires_grad_(False)
        self.classnames, self.num_classes = tuple(classnames), len(classnames)
        self.fingerprint, self.scores = fingerprint, "softmax"
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits.float()
