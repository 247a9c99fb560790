"""Contrastive pre-training of the tiny CLIP on captioned renderings of the world, as a task of the loop.

The loss is the symmetric image-text contrastive one (Radford et al., 2021, section 2.3; samples that share a caption
are positives of each other) plus a cross-entropy over the prompts of each attribute family, which makes a small model
learn several times faster than captions alone. At the end the logit scale is fitted on clean source images: with
captions that name only some attributes, the learned scale leaves the model under-confident on full class names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.classifier import ClipModel
from ..datasets.world import world
from ..models.blueprint import OPENAI_MEAN, OPENAI_STD, make_module, save_local_dir
from ..models.tiny_tokenizer import MERGES, tiny_tokenizer
from ..world.captions import FAMILIES, CaptionBatch, caption_batch, prompts
from .heldout import fit_scale, measure
from .inner import InnerAttack
from .recipe import Recipe

LARGEST_SCALE = 4.6052  # ln 100, where CLIP clamps its logit scale
#: Family -> (period, offset) in steps at which its prompts are used: encoding all of them each time costs more than
#: encoding the images.
VISITS = {
    "composition": (6, 0), "shape": (2, 0), "color": (2, 1), "texture": (2, 0), "letter": (2, 1), "digit": (2, 1),
    "background": (2, 0),
}  # fmt: skip


def model_config(recipe: Recipe, vocabulary: int) -> dict[str, Any]:
    """open_clip's config of the model to train."""
    return {
        "embed_dim": recipe.embed,
        "vision_cfg": {
            "image_size": recipe.image_size, "layers": [recipe.layers] * 4, "width": recipe.width, "patch_size": None,
        },
        "text_cfg": {
            "context_length": recipe.context, "vocab_size": vocabulary, "width": recipe.text_width,
            "heads": max(recipe.text_width // 16, 1), "layers": recipe.text_layers,
        },
    }  # fmt: skip


class Pretraining:
    """Both towers trained from random weights; batch-norm statistics are each process's own, the main one's kept."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self.recipe, self.device, self.total = recipe, device, recipe.steps
        self.tokenizer = tiny_tokenizer(context_length=recipe.context)
        self.config = model_config(recipe, self.tokenizer.vocab_size)
        clip = make_module(self.config, recipe.name).to(device, memory_format=torch.channels_last)
        self.trained = clip.train()
        self.module = _Step(clip, recipe.attributes)
        self.prompts = {
            family: [self.tokenizer(prompts(family, template)).to(device) for template in range(len(templates))]
            for family, (_, templates) in FAMILIES.items()
        }

    def global_batch(self, step: int, parts: int) -> int:
        return self.recipe.batch

    def read(self, step: int, part: int, parts: int) -> tuple[CaptionBatch, Tensor]:
        """Freshly rendered samples and their caption tokens; difficulty grows over the first part of the run."""
        rows = step * self.recipe.batch + np.arange(self.recipe.batch)[part::parts]
        difficulty = min(1.0, step / max(self.recipe.ramp * self.total, 1e-9))
        batch = caption_batch(rows, seed=self.recipe.seed, difficulty=difficulty)
        return batch, self.tokenizer(list(batch.captions))

    def inputs(self, batch: tuple[CaptionBatch, Tensor], step: int) -> tuple:
        """Normalised images, caption tokens, and per attribute family its prompts' tokens and the labels."""
        samples, tokens = batch
        images = samples.images.to(self.device)
        families = {
            name: (texts[step % len(texts)], samples.attributes[name].to(self.device))
            for name, texts in self.prompts.items()
            if step % VISITS[name][0] == VISITS[name][1]
        }
        return normalise(images), tokens.to(self.device), families

    def evaluate(self) -> dict[str, float]:
        """Clean and robust accuracy and ECE on held-out source classes, and accuracy per attribute family."""
        recipe, was_training = self.recipe, self.trained.training
        source = world(variant="source", split="val", size=max(recipe.held_out, 1))
        attack = InnerAttack.read(recipe.eps, recipe.attack_step, recipe.eval_steps)
        classifier = self._model().classifier(source.classnames, source.templates)
        found = measure(classifier, source, range(recipe.held_out), attack, 250, recipe.seed)
        found |= self._families(max(recipe.held_out, 1))
        self.trained.requires_grad_(True).train(was_training)
        return found

    def export(self, run: Path) -> dict[str, Any]:
        """Fit the logit scale on clean source images, write an open_clip folder in fp16; returns facts for the card."""
        learned = self.trained.logit_scale.exp().item()
        if self.recipe.calibrate:
            self.trained.logit_scale.data.fill_(np.log(self._fitted_scale(self.recipe.calibrate)))
        pixels = {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD)}
        digest = save_local_dir(
            self.trained, self.config, run, torch.float16, preprocess=pixels, vocabulary=MERGES
        )
        fitted = self.trained.logit_scale.exp().item()
        scales = {"learned": learned, "fitted": fitted}
        return {"sha256": digest, "logit_scale": scales, "calibrated": self.evaluate()}

    @torch.no_grad()
    def _fitted_scale(self, count: int) -> float:
        source = world(variant="source", split="train", size=count)
        classifier = self._model().classifier(source.classnames, source.templates)
        rows = [list(range(start, min(start + 250, count))) for start in range(0, count, 250)]
        cosines = torch.cat([classifier.cosines(source.read(part).images.to(self.device)) for part in rows])
        return fit_scale(cosines.cpu(), torch.from_numpy(source.labels))

    def _model(self) -> ClipModel:
        size = self.recipe.image_size
        return ClipModel(
            self.trained, self.tokenizer, size=size, mean=OPENAI_MEAN, std=OPENAI_STD, fingerprint=""
        )

    @torch.no_grad()
    def _families(self, count: int) -> dict[str, float]:
        batch = caption_batch(range(count), split="val", seed=self.recipe.seed)
        image = F.normalize(self.trained.encode_image(normalise(batch.images.to(self.device))), dim=-1)
        accuracy = {}
        for name, texts in self.prompts.items():
            labels = batch.attributes[name].to(self.device)
            right = (image @ F.normalize(self.trained.encode_text(texts[0]), dim=-1).t()).argmax(-1) == labels
            accuracy[f"{name}_accuracy"] = right[labels >= 0].double().mean().item()
        return accuracy


class _Step(nn.Module):
    """The loss as a module, so that distributed training sees one forward per backward."""

    def __init__(self, clip: nn.Module, attributes: float):
        super().__init__()
        self.clip, self.attributes = clip, attributes

    def forward(
        self, images: Tensor, tokens: Tensor, families: dict[str, tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, LARGEST_SCALE)
        scale = self.clip.logit_scale.exp()
        image = F.normalize(self.clip.encode_image(images), dim=-1)
        lengths = [len(tokens), *(len(texts) for texts, _ in families.values())]
        texts = self.clip.encode_text(torch.cat([tokens, *(texts for texts, _ in families.values())]))
        text, *classes = F.normalize(texts, dim=-1).split(lengths)
        terms = [
            F.cross_entropy(scale * image @ head.t(), labels, ignore_index=-1, reduction="none")
            for head, (_, labels) in zip(classes, families.values())
        ]
        known = torch.stack([labels >= 0 for _, labels in families.values()]).sum(0).clamp(min=1)
        return {
            "contrastive": contrastive(image, text, tokens, scale),
            "attributes": self.attributes * torch.stack(terms).sum(0) / known,
        }


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


def normalise(images: Tensor) -> Tensor:
    """Pixels in [0, 1] -> CLIP's mean and standard deviation."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (OPENAI_MEAN, OPENAI_STD))
    return (images - mean) / std


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
