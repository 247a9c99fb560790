"""Contrastive pre-training on captioned images of any sources, as a task of the loop.

The loss is the symmetric image-text contrastive one (Radford et al., 2021, section 2.3; samples that share a caption
are positives of each other) plus a cross-entropy over the prompts of each set of classes that the sources name, which
makes a small model learn several times faster than captions alone. At the end the logit scale is fitted on clean
images that nothing was trained on: with captions that name only some attributes, the learned scale leaves the model
under-confident on full class names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.classifier import ClipModel
from ..clip.prompts import tokens_of
from ..models.blueprint import OPENAI_MEAN, OPENAI_STD, make_module
from ..models.folder import save_local_dir
from ..models.tiny_tokenizer import MERGES, learn_merges, tiny_tokenizer, write_merges
from ..models.tokens import VOCABULARY
from ..types import UserError
from .contrastive import ContrastiveStep
from .heldout import fit_scale, measure
from .inner import InnerAttack
from .settings import Pretrain
from .sources import NUMBERS, Rendered, Source, counts, make_sources

#: What a batch is: images, caption tokens, and per prompt set (its prompts' tokens, labels).
Inputs = tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]


def model_config(recipe: Pretrain, vocabulary: int) -> dict[str, Any]:
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


def make_towers(recipe: Pretrain, vocabulary: int) -> tuple[Any, dict[str, Any]]:
    """Randomly initialised towers and their config; both are tried out on one sample.

    Raises:
        UserError: if open_clip cannot build or run this shape.
    """
    config = model_config(recipe, vocabulary)
    clip: Any = make_module(config, recipe.name)  # open_clip's CLIP: encode_image, encode_text, logit_scale
    keys = ("image_size", "width", "layers", "embed", "text_width", "text_layers", "context")
    try:
        with torch.no_grad():
            clip.eval().encode_image(torch.zeros(1, 3, recipe.image_size, recipe.image_size))
            clip.encode_text(torch.zeros(1, recipe.context, dtype=torch.long))
    except Exception as error:  # whatever a layer raises: the shape is what was given
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        shape = ", ".join(f"{key}={getattr(recipe, key)}" for key in keys)
        raise UserError(f"recipe '{recipe.name}': towers of {shape} cannot be built ({reason})") from None
    return clip, config


def learned_vocabulary(recipe: Pretrain, sources: Sequence[Source], run: Path) -> Path:
    """The merges file of a recipe: the bundled one, or one learned on the sources' texts and kept in the run's folder."""
    if not recipe.vocabulary:
        return MERGES
    texts = (text for source in sources for text in source.texts())
    fresh, file = run / f".{VOCABULARY}.{os.getpid()}", run / VOCABULARY
    write_merges(fresh, learn_merges((text for text in texts if text.isascii()), recipe.vocabulary))
    os.replace(fresh, file)  # every process writes the same, and none reads half a file
    return file


class Pretraining:
    """Both towers trained from random weights; batch-norm statistics are each process's own, the main one's kept.

    Args:
        run: the run's folder, where a learned vocabulary is kept.
    """

    def __init__(self, recipe: Pretrain, device: torch.device, run: Path):
        self.recipe, self.device = recipe, device
        self.sources = make_sources(recipe)
        self.counts = counts(self.sources, recipe)
        passes = sum(source.size for source in self.sources) / recipe.batch
        self.total = recipe.steps or round(recipe.epochs * passes)
        self.vocabulary = learned_vocabulary(recipe, self.sources, run)
        self.tokenizer = tiny_tokenizer(self.vocabulary, context_length=recipe.context)
        clip, self.config = make_towers(recipe, self.tokenizer.vocab_size)
        clip = clip.to(device).to(memory_format=torch.channels_last)
        self.trained: Any = clip.train()
        self.module: torch.nn.Module = ContrastiveStep(clip, recipe.contrastive, recipe.classes)
        self.families = {name: prompts for source in self.sources for name, prompts in source.prompts.items()}
        self.prompts = {name: self._prompt_tokens(prompts) for name, prompts in self.families.items()}
        self.known: dict[str, Tensor] = {}  # the tokens of captions already seen

    def _prompt_tokens(self, prompts: Any) -> list[Tensor]:
        """Tokens of all classes, for each template."""
        return [
            tokens_of(self.tokenizer, [text.format(name) for name in prompts.classnames], self.recipe.name).to(self.device)
            for text in prompts.templates
        ]

    def global_batch(self, step: int, parts: int) -> int:
        return self.recipe.batch

    def read(self, step: int, part: int, parts: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Images, caption tokens and labels per prompt set (-1 where a sample has none)."""
        edges = np.concatenate([[0], self.counts.cumsum()])
        places = np.arange(self.recipe.batch)[part::parts]
        u = np.random.Generator(np.random.Philox(key=[self.recipe.seed, 2**62 + step])).random((self.recipe.batch, NUMBERS))
        found, lengths = [], []
        for source, low, high in zip(self.sources, edges[:-1], edges[1:], strict=True):
            mine = places[(places >= low) & (places < high)]
            if len(mine):
                found.append(source.read(step * (high - low) + mine - low, u[mine], step / self.total))
                lengths.append(len(mine))
        none = [torch.full((length,), -1) for length in lengths]
        labels = {
            name: torch.cat([batch.attributes.get(name, empty) for batch, empty in zip(found, none, strict=True)])
            for name in self.families
        }
        captions = [text for batch in found for text in batch.captions]
        return torch.cat([batch.images for batch in found]), self._caption_tokens(captions), labels

    def _caption_tokens(self, captions: Sequence[str]) -> Tensor:
        fresh = [text for text in dict.fromkeys(captions) if text not in self.known]
        if len(self.known) + len(fresh) > 100_000:
            self.known, fresh = {}, list(dict.fromkeys(captions))
        self.known.update(zip(fresh, self.tokenizer(fresh), strict=True) if fresh else ())
        return torch.stack([self.known[text] for text in captions])

    def inputs(self, batch: tuple[Tensor, Tensor, dict[str, Tensor]], step: int) -> Inputs:
        """Normalised images, caption tokens, and per prompt set its prompts' tokens and the labels."""
        images, tokens, labels = batch
        families = {
            name: (texts[step // self.families[name].period % len(texts)], labels[name].to(self.device))
            for name, texts in self.prompts.items()
            if step % self.families[name].period == self.families[name].offset
        }
        return normalise(images.to(self.device)), tokens.to(self.device), families

    def evaluate(self) -> dict[str, float]:
        """Accuracy and ECE, clean and attacked, on held-out samples of each source, named where there are several."""
        recipe, was_training = self.recipe, self.trained.training
        attack = InnerAttack.read(recipe.eps, recipe.attack_step, recipe.eval_steps)
        found: dict[str, float] = {}
        for source in self.sources:
            prefix = f"{source.name}_" if len(self.sources) > 1 else ""
            if source.dataset.task == "single":
                model = self._model().classifier(source.dataset.classnames, source.dataset.templates)
                values = measure(model, source.dataset, source.held_out.tolist(), attack, 250, recipe.seed)
                found |= {prefix + key: value for key, value in values.items()}
            if isinstance(source, Rendered) and recipe.held_out:
                found |= {prefix + key: value for key, value in self._families(source).items()}
        self.trained.requires_grad_(True).train(was_training)
        return found

    def export(self, run: Path) -> dict[str, Any]:
        """Fit the logit scale on images not trained on, write an open_clip folder in fp16; returns facts for the card."""
        learned = self.trained.logit_scale.exp().item()
        if self.recipe.calibrate:
            self.trained.logit_scale.data.fill_(np.log(self._fitted_scale()))
        pixels = {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD)}
        digest = save_local_dir(
            self.trained, self.config, run, torch.float16, preprocess=pixels, vocabulary=self.vocabulary
        )
        fitted = self.trained.logit_scale.exp().item()
        scales = {"learned": learned, "fitted": fitted}
        return {"sha256": digest, "logit_scale": scales, "calibrated": self.evaluate()}

    @torch.no_grad()
    def _fitted_scale(self) -> float:
        """The scale of the smallest cross-entropy over the calibration samples, each among the classes of its source."""
        pairs = []
        for source in self.sources:
            if source.dataset.task == "single":
                model = self._model().classifier(source.dataset.classnames, source.dataset.templates)
                for rows in np.array_split(source.calibration, max(len(source.calibration) // 250, 1)):
                    part = source.dataset.read(rows.tolist())
                    pairs.append((model.cosines(part.images.to(self.device)).cpu(), part.labels))
        return fit_scale(pairs)

    def _model(self) -> ClipModel:
        size = self.recipe.image_size
        return ClipModel(
            self.trained, self.tokenizer, size=size, mean=OPENAI_MEAN, std=OPENAI_STD, fingerprint=""
        )

    @torch.no_grad()
    def _families(self, source: Rendered) -> dict[str, float]:
        batch = source.stream.read(range(self.recipe.held_out), split="val", seed=self.recipe.seed)
        image = F.normalize(self.trained.encode_image(normalise(batch.images.to(self.device))), dim=-1)
        accuracy = {}
        for name in source.prompts:
            labels = batch.attributes[name].to(self.device)
            head = F.normalize(self.trained.encode_text(self.prompts[name][0]), dim=-1)
            right = (image @ head.t()).argmax(-1) == labels
            accuracy[f"{name}_accuracy"] = right[labels >= 0].double().mean().item()
        return accuracy


def normalise(images: Tensor) -> Tensor:
    """Pixels in [0, 1] -> CLIP's mean and standard deviation."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (OPENAI_MEAN, OPENAI_STD))
    return (images - mean) / std
