"""Aleatoric and epistemic uncertainty as UCAT's released code logs them, which differ from the formulas of its paper."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

from ..registry import register
from ..types import Records
from .logits import COLUMNS, logits_of
from .weighted import Means

#: Above this ln(alpha), digamma(alpha + 1) is ln(alpha) to 1e-9.
LARGE = 20.0


@register.metric(
    unit={"au_released": "fraction", "eu_released": ""}, least={"au_released": 0, "eu_released": 0},
    columns=(*COLUMNS, "log_eu", "log_alpha0"),
)  # fmt: skip
def released_uncertainty(records: Records) -> Means:
    """Means over samples of au_released and eu_released; for comparison with numbers logged by that code only.

    Its evidence is alpha = 1e-6 + exp(softplus(logit)) at the model's own logit scale, not exp((cosine + 1) / 0.07).
    au_released: expected entropy under that Dirichlet over ln C, which is the entropy of the softmax over ln C wherever the
    evidence is large, as CLIP's is. eu_released: C / logsumexp(alpha + 1) / ln C, practically 0, where the paper has
    C / (alpha_0 + C). nan where there is one class.
    """
    logits = logits_of(records)
    n, count = len(logits.top), logits.classes_in_all
    each = np.repeat(logits.each_hidden[:, None], min(logits.hidden, 1), axis=1)  # the classes not stored, taken as equal
    log_alpha = np.logaddexp(np.log(1e-6), np.logaddexp(0.0, np.concatenate([logits.top, each], axis=1)))
    times = np.array([1.0] * logits.top.shape[1] + [float(logits.hidden)] * each.shape[1])
    log_total = np.logaddexp.reduce(log_alpha + np.log(times), axis=1) if n else np.zeros(0)
    share = times * np.exp(log_alpha - log_total[:, None])
    au = (share * (_digamma(log_total)[:, None] - _digamma(log_alpha))).sum(1)
    with np.errstate(over="ignore"):
        evidence = np.exp(log_alpha) + 1
    largest = evidence.max(1, initial=1.0)
    with np.errstate(invalid="ignore"):
        inside = largest + np.log((times * np.exp(np.minimum(evidence - largest[:, None], 0))).sum(1))
    eu = count / np.where(np.isfinite(largest), inside, np.inf)
    scale = np.log(count) if count > 1 else np.nan
    columns = np.stack([au / scale, eu / scale], axis=1)
    return Means(columns, lambda means: {"au_released": means[..., 0], "eu_released": means[..., 1]})


def _digamma(log_alpha: np.ndarray) -> np.ndarray:
    """digamma(alpha + 1) from ln(alpha), of any size."""
    return np.asarray(np.where(log_alpha > LARGE, log_alpha, digamma(np.exp(np.minimum(log_alpha, LARGE)) + 1)))
