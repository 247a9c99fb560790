"""What works here, what is missing, and how to get it; and whether a model is the one its card describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import registry
from ..types import UserError
from .environment import Row, environment, row

TOPICS = ("models", "datasets", "environment")


def check(what: Sequence[str] = ()) -> list[Row]:
    """Rows {name, ok, text, required} for topics or model specs; all topics if none is named.

    A row of a model that was asked for by name is `required`: a mismatch with its card is an error.

    Raises:
        UserError: for a name that is neither a topic nor a model.
    """
    topics = {"models": check_models, "datasets": check_datasets, "environment": environment}
    rows: list[Row] = []
    for name in what or TOPICS:
        rows += topics[name]() if name in topics else check_model(name)
    return rows


def check_models() -> list[Row]:
    """Every model card that has weights: whether they are here and intact, or how to get them. Nothing is loaded."""
    return [_model_row(name, card) for name, card in sorted(registry.models.cards().items()) if card.get("source") != "named"]


def _model_row(name: str, card: dict[str, Any]) -> Row:
    from ..models.source import spec_identity

    try:
        spec_identity(name)
    except UserError as error:
        return row(name, False, str(error))
    variant = str(card.get("variant", ""))
    if variant.startswith("hf-hub:"):
        from ..models import folder, hub

        here = hub.cached(variant.removeprefix("hf-hub:"), folder.WEIGHT_NAMES) is not None
        where = "in the hub cache" if here else "downloads itself where there is a network"
        return row(name, here, f"{variant}: {where}")
    return row(name, True, f"{card.get('title', '')} ({card.get('weights', variant)})".strip())


def check_datasets() -> list[Row]:
    """Every dataset card: whether its files are here, or what to put where."""
    from ..datasets.presence import availability

    rows: list[Row] = []
    for name, card in sorted(registry.datasets.cards().items()):
        here, text = availability(card)
        rows += [row(name, here, text), *(row(f"{name} classes", False, told) for told in alike_classes(name) if here)]
    return rows


def alike_classes(name: str) -> list[str]:
    """What the class names of a dataset that is here leave undecided; none where it cannot be opened."""
    from ..clip.alike import alike

    try:
        return [str(finding) for finding in alike(registry.datasets.build(name).classnames)]
    except UserError:
        return []


def check_model(spec: str) -> list[Row]:
    """Load one model and compare its fingerprint with its card, fact by fact.

    Raises:
        UserError: if the name is unknown, or it cannot be loaded.
    """
    from ..models.source import is_spec
    from .fingerprint import compare, fingerprint

    if not is_spec(spec):
        topics = ", ".join(TOPICS)
        raise UserError(f"{registry.models.unknown(registry.parse_spec(spec).name)}; check also takes: {topics}")
    model = registry.models.build(spec)
    measured = fingerprint(model, spec)
    reads = ("context", True, f"{model.tokenizer(['']).shape[1]} tokens; a longer prompt is refused")
    told = _rows(spec, [reads, *(("note", True, note) for note in model.notes)])
    stated = stated_fingerprint(spec)
    if stated is None:
        facts = ((name, True, str(value)) for name, value in measured.items())
        return [*_rows(spec, facts), *told, row(spec, True, "no fingerprint on its card to compare with")]
    rest = ((name, True, str(value)) for name, value in measured.items() if name not in stated)
    return [*_rows(spec, [*compare(measured, stated), *rest]), *told]


def _rows(spec: str, facts: Iterable[tuple[str, bool, str]]) -> list[Row]:
    return [row(f"{spec} {name}", ok, text, required=True) for name, ok, text in facts]


def stated_fingerprint(spec: str) -> dict[str, Any] | None:
    """The fingerprint a model's own card (TOML), or its run folder's `card.json`, states; None if neither does."""
    parsed = registry.models.spec(spec)
    if parsed.variant is None:
        return (registry.models.cards().get(parsed.name) or {}).get("fingerprint")
    file = Path(parsed.variant).expanduser() / "card.json"
    return json.loads(file.read_text()).get("fingerprint") if file.is_file() else None
