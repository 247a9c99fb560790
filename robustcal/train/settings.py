"""The settings of a training run: one class per task, with what that task reads and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

#: Settings that do not decide the weights.
UNWEIGHED = {"title", "save_every", "log_every", "eval_every", "workers", "eval_steps", "source_data"}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every training run reads: length and batch, optimiser, numerics, how often it is written down.

    `batch` is the global batch of one optimiser step: all processes and accumulated parts together. The length is
    `epochs` passes over the training samples, or `steps` of the optimiser where that is given.
    """

    task: ClassVar[str]
    name: str
    title: str = ""
    seed: int = 0
    source_data: str = ""  # clean source samples nothing was trained on: where a temperature may be fitted
    # length and batch
    epochs: float = 10.0
    steps: int = 0
    batch: int = 256
    accumulate: int = 1
    workers: int = 0
    # optimiser
    optimizer: str = "sgd"
    lr: float = 1e-5
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    warmup: int = 1000
    clip_norm: float = 0.0  # 0: no gradient clipping
    ema: float = 0.0  # decay of an exponential moving average of the weights; 0: off
    explode: float = 1e4  # stop when the loss exceeds this many times the largest of its first ten values
    # held-out measurement: linf PGD within eps, a radius such as 1/255
    held_out: int = 1000  # samples of each source set apart for evaluation; never trained on
    eps: str = "1/255"
    attack_step: str = "1/255"
    eval_steps: int = 10  # 0: clean images only
    eval_every: int = 0  # 0: at the end only
    # numerics and records
    precision: str = "auto"  # fp32 | bf16 | auto: bf16 on a GPU that has it
    save_every: int = 500
    log_every: int = 20

    def dictionary(self) -> dict[str, Any]:
        """All settings as plain data, the task among them."""
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"task": self.task, **found}

    def digest(self) -> str:
        """Content hash of the settings that decide the weights: a resumed run must have the same."""
        content = {key: value for key, value in self.dictionary().items() if key not in UNWEIGHED}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class FineTune(Common):
    """Adversarial fine-tuning; the defaults are the common ones of its literature. The inner attack is linf PGD."""

    task: ClassVar[str] = "finetune"
    model: str = "tiny-clip"
    dataset: str = "world-source:split=train"
    objective: str = "tecoa"
    template: str = ""  # one prompt with {} for the class name; empty: the dataset's own
    limit: int = 0  # use only this many training samples (a seeded subset); 0: all
    attack_steps: int = 2  # of the inner attack, which starts at random and moves by `attack_step` within `eps`


@dataclass(frozen=True, kw_only=True)
class Pretrain(Common):
    """Contrastive pre-training of a ModifiedResNet and a text transformer from random weights, on captioned images."""

    task: ClassVar[str] = "pretrain"
    # what is seen
    sources: tuple[str, ...]  # dataset specs, in the resolution `image_size`
    shares: tuple[float, ...] = ()  # of each source in a batch; none: by size
    templates: tuple[str, ...] = ()  # prompts with {} for the class name; none: each dataset's own
    ramp: float = 0.45  # share of the steps over which a rendered source grows to full difficulty
    # augmentation of photographs
    pad: int = 0  # random crop after reflecting this many pixels outward
    flip: bool = False  # horizontal, every second time
    crop_scale: float = 1.0  # random resized crop: smallest share of the area; 1: off
    # loss
    contrastive: float = 1.0  # weight of the image-caption loss
    classes: float = 1.0  # weight of the cross-entropy over class prompts
    calibrate: int = 1000  # further held-out images of each source, on which the logit scale is fitted; 0: as learned
    # towers
    image_size: int = 32
    width: int = 16
    layers: int = 1  # blocks in each of the four stages
    embed: int = 128
    text_width: int = 64
    text_layers: int = 2
    context: int = 16
    vocabulary: int = 0  # byte-pair merges, learned on the sources' texts; 0: the bundled ones of the rendered world


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """A list of recipes to run in order, fine-tunes from the base trained first."""

    task: ClassVar[str] = "zoo"
    name: str
    title: str = ""
    recipes: tuple[str, ...]
    results_only: tuple[str, ...] = ()  # which of them are not bundled, for the size of the package
    licence: str = ""  # of the weights, for their cards
    claims: tuple[str, ...] = ()  # test sets, used for nothing else, on which a bundled card states the clean accuracy


Recipe = FineTune | Pretrain
TASKS: dict[str, type[FineTune | Pretrain | Zoo]] = {kind.task: kind for kind in (FineTune, Pretrain, Zoo)}
