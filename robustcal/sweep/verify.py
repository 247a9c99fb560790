"""The judge: what an attack proposes is projected, predicted again in fp32, and measured. Attacks are not trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import dirichlet
from ..types import Threat

#: How many logits a record keeps: all of them for every set of the literature.
TOP = 1024
#: Slack for floating-point rounding, in pixel units of [0, 1]: a few units in the last place of 1.0.
TOLERANCE = 1e-6


def project(images: Tensor, proposal: Tensor, threat: Threat) -> Tensor:
    """The point of the ball and of the pixel range nearest to the proposal; non-finite pixels become clean ones.

    The ball is projected onto first and the range second; for these two norms the second step cannot leave the ball,
    because the clean image lies in the range.
    """
    change = torch.where(torch.isfinite(proposal), proposal, images) - images
    if threat.norm == "linf":
        change = change.clamp(-threat.eps, threat.eps)
    elif threat.norm == "l2":
        length = change.flatten(1).norm(dim=1).clamp_min(1e-12)
        change = change * (threat.eps / length).clamp_max(1.0).view(-1, 1, 1, 1)
    inside = (images + change).clamp(threat.low, threat.high)
    return torch.where(change == 0, images, inside)


def sample_flags(images: Tensor, proposal: Tensor, threat: Threat) -> dict[str, Tensor]:
    """What was wrong with the proposal itself, per sample: flag name -> (N,) bool."""
    flat = proposal.flatten(1)
    finite = torch.isfinite(flat).all(1)
    change = flat - images.flatten(1)
    too_far = torch.zeros_like(finite)
    if threat.norm in ("linf", "l2"):
        size = change.abs().amax(1) if threat.norm == "linf" else change.square().sum(1).sqrt()
        too_far = size > threat.eps * (1 + 1e-4) + TOLERANCE
    return {
        "outside-ball": too_far & finite,
        "outside-range": ((flat < threat.low - TOLERANCE) | (flat > threat.high + TOLERANCE)).any(1) & finite,
        "non-finite": ~finite,
    }


@torch.no_grad()
def predict(classifier: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits in full fp32, in a fresh batch, without autocast: (N, C) on the CPU."""
    with torch.autocast(images.device.type, enabled=False):
        return classifier(images.float()).float().cpu()


def measure(logits: Tensor, labels: Tensor, cosines: Tensor | None) -> dict[str, np.ndarray]:
    """The columns of the record that follow from the logits alone.

    Args:
        logits: (N, C) at the model's own scale.
        labels: (N,) class indices, or (N, C) multi-hot.
        cosines: (N, C) in [-1, 1], or None for a classifier that has none (then no Dirichlet reading: NaN).
    """
    logits = logits.double()
    count = len(logits)
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    confidence, prediction = p.max(1)
    top, order = logits.sort(dim=1, descending=True, stable=True)
    top, rest, order = top[:, :TOP], top[:, TOP:], order[:, :TOP]
    columns: dict[str, Any] = {
        "prediction": prediction,
        "confidence": confidence,
        "entropy": -(p * log_p).sum(1).clamp_max(0),
        "top_logits": top.float(),
        "top_classes": order.int(),
        "rest_logit": rest.logsumexp(1) if rest.shape[1] else torch.full((count,), -torch.inf),
        **_against_label(p, prediction, labels),
    }
    if cosines is None:
        columns |= {k: torch.full((count,), torch.nan) for k in ("dirichlet_confidence", "log_alpha0", "au", "log_eu")}
    else:
        log_alpha = dirichlet.log_concentration(cosines.double())
        columns["dirichlet_confidence"] = log_alpha.softmax(1).amax(1)
        columns["log_alpha0"] = log_alpha.logsumexp(1)
        columns["au"] = dirichlet.aleatoric(log_alpha)
        columns["log_eu"] = dirichlet.log_epistemic(log_alpha)
    return {name: value.numpy() for name, value in columns.items()}


def _against_label(p: Tensor, prediction: Tensor, labels: Tensor) -> dict[str, Tensor]:
    if labels.ndim == 1:
        label_p = p.gather(1, labels[:, None])[:, 0]
        brier = (p.square().sum(1) - 2 * label_p + 1).clamp_min(0)
        return {"label": labels, "correct": prediction == labels, "label_probability": label_p, "brier": brier}
    # Multi-label: "correct" is top-1 in the label set, the probability is the mass on the label set.
    target = labels.double()
    mass = (p * target).sum(1)
    return {
        "label": torch.full((len(p),), -1),
        "correct": target.gather(1, prediction[:, None])[:, 0] > 0,
        "label_probability": mass,
        "brier": (p - target / target.sum(1, keepdim=True).clamp_min(1)).square().sum(1),
    }


def norms(images: Tensor, adversarial: Tensor) -> dict[str, np.ndarray]:
    """Largest absolute and Euclidean pixel change, per sample."""
    change = (adversarial.double() - images.double()).flatten(1)
    return {"linf": change.abs().amax(1).cpu().numpy(), "l2": change.norm(dim=1).cpu().numpy()}


def join_flags(flags: Mapping[str, Tensor], count: int) -> list[str]:
    """Flag masks -> one comma-separated text per sample."""
    columns = {name: mask.cpu().tolist() for name, mask in flags.items()}
    return [",".join(name for name, mask in columns.items() if mask[row]) for row in range(count)]
