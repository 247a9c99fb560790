"""What a report says beside its numbers: cells that failed or are unfinished, remarks on data and classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import registry
from ..types import Records, UserError
from .labels import short_labels
from .merge import Source


def without_failed(sources: Sequence[Source], notes: list[str]) -> list[Source]:
    """The cells that are not unfinished because they failed, and that have records; a note says which are left out."""
    reasons = {run: run.failures() for run in dict.fromkeys(source.run for source in sources)}
    kept = []
    for source in sources:
        cell, rows = source.cell, sum(source.run.present(source.cell.id).values())
        said = [reasons[source.run].get(cell.id), *source.run.remarks(cell.id).get("failed", ())]
        reason = next(filter(None, said), None) if rows < cell.n else None
        if reason:
            notes.append(f"failed: {cell.title}: {reason}")
        elif rows < cell.n:
            notes.append(f"unfinished: {cell.title}: {rows} of {cell.n} samples")
        if rows and not reason:
            kept.append(source)
    return kept


def other_labels(known: dict[str, tuple[str, Mapping[str, Any]]], dataset: str, title: str, records: Records) -> list[str]:
    """A line where samples have other labels in these records than in the first ones of their data set that were read.

    Args:
        known: data set -> title of that cell, and labels by id; filled here.
    """
    labels = records["labels"] if "labels" in records else records["label"]
    if dataset not in known:
        known[dataset] = title, dict(zip(records["id"], labels))
        return []
    other, first = known[dataset]
    pairs = ((name, label, first.get(name, label)) for name, label in zip(records["id"], labels))
    wrong = [name for name, label, before in pairs if label is not before and not np.array_equal(label, before)]
    return [f"conflict: {title}: {len(wrong)} labels are not those of {other}, such as that of {wrong[0]}"] if wrong else []


def remarks_of(sources: Iterable[Source]) -> list[str]:
    """What was noticed about data sets and about the classes of models on them, a line each."""
    lines: dict[str, None] = {}
    for source in sources:
        remarks, names = source.run.remarks(source.cell.id), source.names
        lines |= dict.fromkeys(f"data: '{names['dataset']}': {line}" for line in remarks.get("data", ()))
        place = f"{names['model']} on '{names['dataset']}'"
        lines |= dict.fromkeys(f"classes: {place}: {line}" for line in remarks.get("classes", ()))
    return list(lines)


def out_of_their_world(sources: Iterable[Source]) -> list[str]:
    """A line for the models of rendered images that stand on natural ones, which they do not know; [] where there are none.

    By cards: a data set's says ``natural = false``, a model's or its training run's what its ``source_data`` was.
    """
    found: dict[str, None] = {}
    data: dict[str, None] = {}
    for source in sources:
        cell = source.cell
        specs = (cell.model, str((cell.training or {}).get("pretraining", cell.model)))
        cards = [registry.models.cards().get(name, {}) for spec in specs for name in _named("models", spec)]
        told = [(cell.training or {}).get("source_data"), *(card.get("source_data") for card in cards)]
        if any(_is_drawn(str(source or "")) for source in told) and not _is_drawn(cell.dataset):
            found[source.names["model"]] = data[source.names["dataset"]] = None
    said = "trained on a rendered world; their numbers on natural images test the tool and say nothing about CLIP"
    who, where = (", ".join(short_labels(names).values()) for names in (found, data))
    return [f"toy models: {who} on {where}: {said}"] if found else []


def fitted_where_measured(sources: Iterable[Source]) -> list[str]:
    """A line for the models whose temperature was fitted on clean images of the set that they are measured on; [] for none."""
    found: dict[str, None] = {}
    data: dict[str, None] = {}
    for source in sources:
        fitted = _fitted_on(source.cell.model, source.cell.training or {})
        if fitted and _same_images(source.cell.dataset, fitted):
            found[source.names["model"]] = data[source.names["dataset"]] = None
    who, where = (", ".join(short_labels(names).values()) for names in (found, data))
    said = "their temperature was fitted on clean images of this very set, some of which may be measured; data= names another"
    return [f"fitted here: {who} on {where}: {said}"] if found else []


def _fitted_on(model: str, training: Mapping[str, Any]) -> str | None:
    """The data set on which a temperature in a model spec was fitted: given, or the source of the model below."""
    try:
        spec = registry.parse_spec(model)
    except UserError:  # see `_named`
        return None
    given = {key: value for key, value in spec.params.items() if value not in (None, "none")}
    if registry.normalise(spec.name) != "temperature" or "t" in given:
        return None
    below = registry.models.cards().get(str(given.get("model", "")), {})
    stated = given.get("data") or training.get("source_data") or below.get("source_data")
    return str(stated) if stated else None


def same_set(one: str, other: str) -> bool:
    """Whether two dataset specs name one set, whatever part of it; False where a run of strangers has no spec there."""
    try:
        first, second = (registry.parse_spec(text.split(" #")[0]) for text in (one, other))
    except UserError:
        return False
    return (first.name, first.variant) == (second.name, second.variant)


def _same_images(one: str, other: str) -> bool:
    """Whether two dataset specs name one set and, as far as both say, one part of it."""
    if not same_set(one, other):
        return False
    first, second = (registry.parse_spec(text.split(" #")[0]).params for text in (one, other))
    parts = ({str(params.get(key)) for params in (first, second)} - {"None", "none"} for key in ("split", "subset"))
    return all(len(said) < 2 for said in parts)


def _is_drawn(dataset: str) -> bool:
    """Whether all sets that a dataset spec names have cards that say they are not natural."""
    if not dataset:
        return False
    cards = registry.datasets.cards()
    drawn = {name for card, facts in cards.items() if facts.get("natural") is False for name in (card, facts["source"])}
    return drawn.issuperset(_named("datasets", dataset))


def _named(family: str, text: str) -> Iterator[str]:
    """The names of a family in a spec: those inside it where there are such, else its own."""
    try:
        spec = registry.parse_spec(text)
    except UserError:  # a run of strangers may call its things anything
        return
    known = getattr(registry, family).names()
    inside = [str(value) for value in spec.params.values() if str(value).partition(":")[0] in known]
    for value in inside:
        yield from _named(family, value)
    if not inside:
        yield registry.normalise(spec.name)


def condensed(notes: list[str], most: int = 3) -> list[str]:
    """The notes, with no more than `most` of one kind spelled out."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(note.split(":")[0], []).append(note)
    short = []
    for kind, lines in kinds.items():
        short += lines[:most] + ([f"{kind}: and {len(lines) - most} more"] if len(lines) > most else [])
    return short
