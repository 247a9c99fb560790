"""Attack losses: (logits (N, C), labels) -> (N,), larger is worse for the classifier.

Attacks sum them over the batch, never average, so that a sample does not depend on its neighbours. Labels are class
indices (N,) int64, or multi-hot (N, C) for multi-label tasks.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import UserError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-probability of the label; for multi-hot labels the centred binary cross-entropy."""
    if labels.ndim == 2:
        return centred_bce(logits, labels)
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest wrong logit minus the label's logit: positive exactly when the prediction is wrong.

    Multi-hot labels: largest negative logit minus the mean positive logit (0 where there is no positive), the form
    of the multi-label tables of the UCAT line of work. A sample whose classes are all positive competes with 0.
    """
    if labels.ndim == 2:
        positive = labels > 0
        count = positive.sum(1)
        mean = (logits * positive).sum(1) / count.clamp(min=1)
        rival = logits.masked_fill(positive, -torch.inf).amax(1)
        return torch.where(count < logits.shape[1], rival, 0) - mean
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6): the margin over l_(1) - l_(3), free of scale and shift.

    Needs three classes; with two the ratio is 1 or -1 everywhere, so the plain margin takes its place.
    """
    _single(labels, "dlr")
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR (Croce & Hein 2020, eq. 7): l_t - l_y over l_(1) - (l_(3) + l_(4)) / 2. Margin below 4 classes."""
    _single(labels, "targeted dlr")
    pair = logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    if logits.shape[1] < 4:
        return pair
    top = logits.topk(4, dim=1).values
    return pair / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def centred_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the logits minus their mean over classes, summed over classes.

    Raw CLIP logits all lie far above zero, where every sigmoid is 1 and positives have no gradient; subtracting the
    image's mean logit puts the threshold among the classes.
    """
    return raw_bce(logits - logits.mean(1, keepdim=True), labels)


def raw_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on the raw logits, as published: degenerate on CLIP logits, kept for comparison only."""
    if labels.ndim == 1:
        labels = F.one_hot(labels, logits.shape[1])
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(1)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy, "margin": margin, "dlr": dlr, "bce": centred_bce, "bce-raw": raw_bce,
}  # fmt: skip


def find_loss(name: str) -> Loss:
    """The loss of this name.

    Raises:
        UserError: naming the nearest valid alternative.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(LOSSES)}"
        raise UserError(f"unknown attack loss '{name}'; {hint}")
    return LOSSES[name]


def _single(labels: Tensor, name: str) -> None:
    if labels.ndim != 1:
        raise UserError(f"loss '{name}' needs one label per image; for multi-label data use loss=margin or loss=bce")
