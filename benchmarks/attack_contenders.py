"""The loops that attack_speed.py compares; each is a function (images, labels, steps) -> adversarial images."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from robustcal import registry
from robustcal.clip.classifier import ClipModel, LogitClassifier
from robustcal.noise import Noise
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import SEARCH_DTYPES
from robustcal.types import Threat

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EPS = STEP = 1 / 8 / 255  # with random weights some samples survive this radius, so that robust accuracies can be compared


def build(name: str, classes: int, device: str) -> tuple[ClipModel, list[str], list[str]]:
    """A CLIP model with random weights and CLIP's logit scale, its class names and prompts."""
    logging.disable(logging.WARNING)  # open_clip says that the weights are random; they are meant to be
    torch.manual_seed(0)
    clip = open_clip.create_model(name, pretrained=None).to(device)
    clip.logit_scale.data.fill_(float(np.log(100)))
    model = ClipModel(clip, open_clip.get_tokenizer(name), size=clip.visual.image_size[0], mean=MEAN, std=STD,
                      fingerprint="random")  # fmt: skip
    return model, [f"thing {i}" for i in range(classes)], ["This is a photo of a {}"]


def own(classifier, device: str, search: str) -> Callable[[Tensor, Tensor, int], Tensor]:
    def attack(images: Tensor, labels: Tensor, steps: int) -> Tensor:
        plugin, arguments = registry.attacks.arguments(
            registry.attacks.spec(f"pgd:steps={steps}:step={STEP}:return=last")
        )
        noise = Noise(0, [str(i) for i in range(len(images))], device)
        target = Meter(classifier, len(images), SEARCH_DTYPES[search]) if search != "fp32" else classifier
        return plugin.make(target, images, labels, Threat(EPS), noise, **arguments)

    return attack


def torchattacks_pgd(classifier) -> Callable[[Tensor, Tensor, int], Tensor]:
    import torchattacks

    def attack(images: Tensor, labels: Tensor, steps: int) -> Tensor:
        return torchattacks.PGD(classifier, eps=EPS, alpha=STEP, steps=steps)(images, labels)

    return attack


def published(model: ClipModel, classnames: list[str], templates: list[str], device: str):
    """Prompts encoded in every step, loss averaged over the batch, gradients of all parameters accumulated."""
    clip = copy.deepcopy(model.clip).requires_grad_(True)
    tokens = model.tokenizer([templates[0].format(name) for name in classnames]).to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))

    def attack(images: Tensor, labels: Tensor, steps: int) -> Tensor:
        delta = torch.empty_like(images).uniform_(-EPS, EPS)
        delta = ((images + delta).clamp(0, 1) - images).requires_grad_(True)
        for _ in range(steps):
            image = F.normalize(clip.encode_image((images + delta - mean) / std), dim=-1)
            text = F.normalize(clip.encode_text(tokens), dim=-1)
            F.cross_entropy(clip.logit_scale.exp() * image @ text.t(), labels).backward()
            moved = (delta.detach() + STEP * delta.grad.sign()).clamp(-EPS, EPS)
            delta.data = (images + moved).clamp(0, 1) - images
            delta.grad.zero_()
        return (images + delta).detach()

    return attack


def plain_forward(classifier, model: ClipModel) -> LogitClassifier:
    """The same classifier through open_clip's own `encode_image`."""

    class Plain(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            embedding = model.clip.encode_image(classifier.preprocess(images)).float()
            return F.normalize(embedding, dim=-1) @ classifier.head.t() * classifier.scale

    return LogitClassifier(Plain(), classifier.classnames)
