"""Post-hoc temperature: fitted from records, applied to records, as a control for calibration under attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..scaling import best_temperature
from ..types import Records, UserError
from .logits import Logits, logits_of, single_label
from .scores import LOSS


def fit_temperature(records: Records) -> float:
    """The temperature T that minimises the mean negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    The loss is convex in 1 / T, so its derivative has one root. Where the loss falls up to the end of the range
    (every label has the largest logit, or labels are no better than chance), that end is returned; the range follows
    the spread of the logits (`scaling.best_temperature`). Logits without any spread have temperature 1.

    Raises:
        UserError: no records, a multi-label task, or records without logits.
    """
    if not len(records["label"]):
        raise UserError("a temperature cannot be fitted to no records")
    if not single_label(records):
        raise UserError("a temperature is fitted to single-label records; these are multi-label")
    logits = logits_of(records)
    label, largest = float(logits.of(records["label"]).mean()), float(logits.top[:, 0].mean())
    found, _ = best_temperature(lambda t: float(_expected_logit(logits, t).mean()), label, largest)
    return found if np.isfinite(found) else 1.0


def _expected_logit(logits: Logits, temperature: float) -> np.ndarray:
    """Mean logit (N,) under softmax(logits / temperature)."""
    p = logits.probabilities(temperature)
    mean = (p * logits.top).sum(1)
    if logits.hidden:
        mean += np.maximum(1 - p.sum(1), 0) * logits.each_hidden
    return np.asarray(mean)


def at_temperature(records: Records, temperature: float) -> dict[str, np.ndarray]:
    """Records as they would be at softmax(logits / temperature): predictions stay, probabilities change.

    Replaces confidence, label_probability, entropy, brier, top_logits and rest_logit; the Dirichlet columns, which do
    not depend on the logit scale, stay. Above 1024 classes, those whose logits were not stored are taken as equal.
    """
    logits = logits_of(records)
    norm = logits.normaliser(temperature)
    p = logits.probabilities(temperature)
    label = np.asarray(records["label"])
    chosen = np.where(label >= 0, np.exp(logits.of(label) / temperature - norm), np.nan)
    each = np.exp(logits.each_hidden / temperature - norm) if logits.hidden else np.zeros(len(p))
    hidden = logits.hidden
    entropy = norm - (p * logits.top).sum(1) / temperature
    if hidden:
        entropy -= hidden * each * logits.each_hidden / temperature
    changed = {
        "confidence": p[:, 0], "label_probability": chosen, "entropy": np.maximum(entropy, 0.0),
        "brier": (p**2).sum(1) + hidden * each**2 - 2 * chosen + 1,
        "top_logits": logits.top / temperature,
        "rest_logit": logits.each_hidden / temperature + np.log(hidden) if hidden else logits.rest,
    }  # fmt: skip
    return {**{name: column for name, column in records.items() if name != LOSS}, **changed}


def posthoc(
    target: Records, *, clean_source: Records | None = None, attacked_source: Records | None = None
) -> Mapping[str, tuple[float, dict[str, np.ndarray]]]:
    """Temperatures and the records at them: {name: (temperature, records)}.

    "native" is the model's own scale; "clean" and "attacked" are fitted on the source records given; "oracle" on the
    target itself, which no one could do: it bounds what a temperature can repair.
    """
    fitted = {"native": 1.0}
    if clean_source is not None:
        fitted["clean"] = fit_temperature(clean_source)
    if attacked_source is not None:
        fitted["attacked"] = fit_temperature(attacked_source)
    fitted["oracle"] = fit_temperature(target)
    return {name: (value, at_temperature(target, value)) for name, value in fitted.items()}
