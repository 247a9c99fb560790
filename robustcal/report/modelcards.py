"""What is known of the models of a report, for the page: method, weights, source data, licence, what was claimed of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..cell import Cell
from ..registry import models, parse_spec
from ..types import UserError
from .evaluate import Results

#: What is said where nobody said it.
UNKNOWN = "not stated"


def model_cards(results: Results) -> list[dict[str, Any]]:
    """For every model its label, its spec and facts in words, in the order of the report."""
    found: dict[str, dict[str, Any]] = {}
    for cell in results.cells:
        if cell.model not in found:
            facts = facts_of(cell.meta)
            found[cell.model] = {"label": results.labels["model"][cell.model], "spec": cell.model, "facts": facts}
    return [found[model] for model in results.values("model")]


def facts_of(meta: Cell) -> dict[str, str]:
    """Title -> text. What a run recorded of a training comes before what a card says; a card is that of the model's name."""
    card, trained = card_of(meta.model), meta.training or {}
    known = {**card, **{key: value for key, value in trained.items() if value not in (None, "")}}
    facts = {
        "what": str(card.get("title", "")),
        "method": str(known.get("method") or UNKNOWN),
        "objective": str(known.get("objective", "")) if known.get("objective") != known.get("method") else "",
        "base": str(known.get("base", "")),
        "architecture": str(_part(card, "fingerprint").get("architecture", "")),
        "clean source data": str(known.get("source_data") or UNKNOWN),
        "trained against": str(known.get("inner") or known.get("trained_at") or ""),
        "training seed": str(known.get("seed", "")),
        "weights hash": meta.identity.weights or UNKNOWN,
        "licence": str(card.get("licence") or UNKNOWN),
        "claimed": "; ".join(claims_of(card)) or UNKNOWN,
        "homepage": str(card.get("homepage", "")),
    }
    return {title: text for title, text in facts.items() if text}


def card_of(spec: str) -> Mapping[str, Any]:
    """The card of the name in a spec; {} where there is none, or where a variant says that it is another model."""
    try:
        found = parse_spec(spec.split(" #")[0])
    except UserError:
        return {}
    return models.cards().get(found.name, {}) if found.variant is None else {}


def claims_of(card: Mapping[str, Any]) -> Iterator[str]:
    """What a card claims, a line each: accuracies in per cent, on a data set or at a radius."""
    for where, said in _part(card, "claims").items():
        if isinstance(said, Mapping):
            numbers = ", ".join(f"{name} {_percent(value)}".replace("_", " ") for name, value in said.items())
            yield f"{where}: {numbers}"
        else:
            yield f"{where} {_percent(said)}"


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = card.get(name, {})
    return part if isinstance(part, Mapping) else {}


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)
