"""One shard of one cell: attack it, judge it, and return its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import registry
from ..cell import Cell
from ..exact import full_fp32
from ..noise import Noise
from ..types import Batch, Threat, UserError, reason_of
from . import declared, verify
from .meter import Meter

#: The columns of a record: name -> an array, or a list of texts or of lists, one entry per sample.
Columns = dict[str, Any]
SEARCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_attack(spec: str, surrogate_of: Callable[[str], torch.nn.Module] | None = None) -> Callable[..., Tensor]:
    """The attack a spec names, with its parameters filled in: (classifier, images, labels, threat, noise) -> images.

    Args:
        surrogate_of: builds the classifier of another model, for attacks that declare `surrogate=` metadata.
    """
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec(spec))
    if (other := declared.named_surrogate(plugin, arguments)) is not None:
        if surrogate_of is None:
            raise UserError(f"attack '{spec}' needs another model to craft on; run it through bench")
        arguments["surrogate"] = surrogate_of(other)
    return partial(plugin.make, **arguments)


@dataclass(frozen=True)
class Judged:
    """What the device had to say about one batch, on the CPU; `columns` measures it, wherever and whenever that suits."""

    ids: tuple[str, ...]
    labels: Tensor
    logits: Tensor
    cosines: Tensor | None
    norms: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    flags: dict[str, Tensor]

    def columns(self) -> Columns:
        """The columns of the record: one row per sample."""
        columns: Columns = verify.measure(self.logits, self.labels, self.cosines)
        columns |= self.norms | self.counts
        columns["flags"] = verify.join_flags(self.flags, len(self.ids))
        if self.labels.ndim == 2:
            columns["labels"] = [row.nonzero()[:, 0].tolist() for row in self.labels]
        return {"id": np.array(self.ids, dtype=object), **columns}


def attack_and_judge(
    attack: Callable[..., Tensor], classifier: torch.nn.Module, batch: Batch, threat: Threat, *,
    seed: int = 0, search: torch.dtype = torch.float32, keeps_label: bool = False,
) -> tuple[Tensor, Columns]:  # fmt: skip
    """Attack one batch and measure what came out: the judged images and the columns of the record. See `judge`."""
    noise = Noise(seed, batch.ids, batch.images.device)
    adversarial, judged = judge(attack, classifier, batch, threat, noise, search=search, keeps_label=keeps_label)
    return adversarial, judged.columns()


@full_fp32()
def judge(
    attack: Callable[..., Tensor], classifier: torch.nn.Module, batch: Batch, threat: Threat, noise: Noise, *,
    search: torch.dtype = torch.float32, keeps_label: bool = False,
) -> tuple[Tensor, Judged]:  # fmt: skip
    """Attack one batch, and let the model judge what came out. Returns the judged images, and what it said of them.

    Args:
        search: dtype of the attack's own passes; the judge's are fp32.
        keeps_label: the attack promises to leave predictions unchanged; where it does not, that is flagged.
    """
    images, labels = batch.images, batch.labels
    if getattr(classifier, "training", False):
        raise UserError("the classifier is in training mode; call .eval() on it before it is attacked")
    meter = Meter(classifier, len(batch), search)
    proposal = attack(meter, images.clone(), labels.clone(), threat, noise)  # it may write on what it is given
    if not isinstance(proposal, Tensor) or proposal.shape != images.shape:
        what = f"a tensor {tuple(proposal.shape)}" if isinstance(proposal, Tensor) else type(proposal).__name__
        raise UserError(f"the attack returned {what}; it must return images of the shape it was given, {tuple(images.shape)}")
    proposal = proposal.detach()
    if getattr(classifier, "training", False):
        raise UserError("the attack left the classifier in training mode: it changed the model it was to measure")
    flags = verify.sample_flags(images, proposal, threat)
    adversarial = verify.project(images, proposal, threat)
    logits = verify.predict(classifier, adversarial)
    if logits.shape != (len(batch), classifier.num_classes):
        wanted = f"{len(batch)} images of {classifier.num_classes} classes"
        raise UserError(f"the classifier returned {tuple(logits.shape)} for {wanted}")
    if not torch.isfinite(logits).all():
        broken = int((~torch.isfinite(logits).all(1)).sum())
        raise UserError(f"the classifier returned logits that are not finite for {broken} of {len(batch)} images")
    flags["zero-gradients"] = meter.counts["zero_gradients"] > 0
    if keeps_label:
        flags["label-changed"] = verify.predict(classifier, images).argmax(1) != logits.argmax(1)
    if search != torch.float32:
        with torch.no_grad():
            flags["precision-disagreement"] = meter(adversarial).argmax(1).cpu() != logits.argmax(1)
    judged = Judged(
        batch.ids, labels.cpu(), logits, cosines_of(classifier, logits), verify.norms(images, adversarial),
        {name: count.double().cpu().numpy() for name, count in meter.counts.items()},
        {name: mask.cpu() for name, mask in flags.items()},
    )  # fmt: skip
    return adversarial, judged


def cosines_of(classifier: torch.nn.Module, logits: Tensor) -> Tensor | None:
    """Cosine similarities from the logits of a CLIP classifier; None for one without a logit scale."""
    scale = getattr(classifier, "scale", None)
    if scale is None:
        return None
    bias = getattr(classifier, "bias", None)
    cosines: Tensor = (logits - (0 if bias is None else bias.cpu())) / scale.cpu()
    return cosines


def run_shard(cell: Cell, batch: Batch, classifier: torch.nn.Module, attack: Callable[..., Tensor], batch_size: int) -> Columns:
    """The records of some samples of a cell, attacked in pieces of at most `batch_size`: see `judge_pieces`."""
    return records_of(judge_pieces(cell, batch, classifier, attack, batch_size)[0])


def judge_pieces(
    cell: Cell, batch: Batch, classifier: torch.nn.Module, attack: Callable[..., Tensor], batch_size: int,
    noise_of: Callable[[slice], Noise] | None = None,
) -> tuple[list[Judged], int]:  # fmt: skip
    """`batch` attacked and judged in pieces of at most `batch_size`, halved when memory runs out; and the size in the end.

    The pieces do not change the result beyond floating point: noise is keyed by sample, losses are summed.

    Args:
        noise_of: the streams of some rows; default: new ones.
    """
    pieces: list[Judged] = []
    start = 0
    while start < len(batch):
        rows = slice(start, min(start + batch_size, len(batch)))
        piece = Batch(batch.ids[rows], batch.images[rows], batch.labels[rows])
        noise = noise_of(rows) if noise_of else Noise(cell.seed, piece.ids, piece.images.device)
        try:
            search = SEARCH_DTYPES[cell.precision]
            judged = judge(attack, classifier, piece, cell.threat, noise, search=search, keeps_label=cell.keeps_label)[1]
            pieces.append(judged)
            start += len(piece)
        except Exception as error:
            if not out_of_memory(error):
                where = f"attack '{cell.attack}' on model '{cell.model}', dataset '{cell.dataset}'"
                raise UserError(f"{where}: {reason_of(error)}") from error
            if batch_size == 1:
                raise UserError(f"out of memory with one image of {cell.dataset} on {cell.model}") from None
            batch_size = max(1, min(batch_size, len(batch)) // 2)
        else:
            continue
        if torch.cuda.is_available():  # here, where the error and with it the tensors of the failed piece are gone
            torch.cuda.empty_cache()
    return pieces, batch_size


def records_of(pieces: Sequence[Judged]) -> Columns:
    """The columns of some pieces, one after the other."""
    columns = [piece.columns() for piece in pieces]
    return {name: _concatenate([piece[name] for piece in columns]) for name in columns[0]}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left; torch has no class for the host's."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)


def _concatenate(parts: list[Any]) -> Any:
    return list(chain.from_iterable(parts)) if isinstance(parts[0], list) else np.concatenate(parts)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`."""
    return Batch(batch.ids, batch.images.to(device), batch.labels.to(device))
