"""The layout `ood`: how well images of unknown classes are told from known ones, clean and with either side attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..metrics.separation import COLUMNS, MEASURES, SCORES, separation
from ..types import Records
from .again import members, readers, usable
from .captions import protocol
from .evaluate import Measured, Results
from .replicates import Replicates, stretched
from .resample import Resamples
from .tables import Column, Entry, Row, Table

OOD = "ood"  #: the task of a cell whose images have no right class
LABELS = ("Known", "Unknown", "Attacked", "Attack", "Radius", "Model")
Pair = tuple[Measured, Measured]  #: a cell of known images and one of unknown images


def ood_tables(results: Results) -> list[Table]:
    """One table per measure: known set, unknown set, what is attacked and model by the score that tells them apart."""
    pairs = list(pairs_of(results))
    read = readers(results) if pairs else {}
    found = [told_apart(read[known.id](COLUMNS), read[unknown.id](COLUMNS)) for known, unknown in pairs]
    tables = []
    for measure, (title, better) in MEASURES.items():
        columns = tuple(Column(name, "", True, better, True) for name in SCORES.values())
        rows: list[Row] = []
        for pair, numbers in zip(pairs, found, strict=True):
            entries = tuple(_entry(numbers, f"{measure}_{score}") for score in SCORES)
            names = names_of(results, pair)
            rows.append(Row(names, entries, rule=bool(rows) and rows[-1].labels[:-1] != names[:-1]))
        short = (
            f"{title} (in %) of telling images of known classes from images of unknown ones by a score of the model; known ones"
            " are positive [95 % interval]. Chance: 50 % AUROC, 95 % FPR."
        )
        cells = [cell for pair in pairs for cell in pair]
        versions = cells[0].run.header.get("versions", {}) if cells else {}
        caption = f"{short} {protocol([cell.meta for cell in cells], versions)}" if cells else short
        tables.append(Table(f"ood-{measure}", caption, LABELS, columns, tuple(rows), short=short))
    return tables


def pairs_of(results: Results) -> Iterator[Pair]:
    """Known and unknown cells of one model, one set of prompts and one resolution: both clean, then one of them attacked."""
    cells = [cell for cell in results.cells if not cell.meta.accuracy_only and cell.kind != "worst"]
    known, unknown = [c for c in cells if usable(c.meta)], [c for c in cells if c.meta.task == OOD]
    sets = dict.fromkeys((k.dataset, u.dataset) for k in known for u in unknown if _fit(k, u))
    rules: list[Callable[[Measured, Measured], bool]] = [
        lambda k, u: k.kind == u.kind == "clean",
        lambda k, u: k.kind != "clean" and u.kind == "clean",
        lambda k, u: k.kind == "clean" and u.kind != "clean",
    ]
    for one, other in sets:
        for rule in rules:
            for member in members(results):
                for k in (k for k in known if k.dataset == one):
                    for u in (u for u in unknown if u.dataset == other):
                        if _fit(k, u) and rule(k, u) and _attacked(k, u) == member:
                            yield k, u


def _fit(known: Measured, unknown: Measured) -> bool:
    one, other = known.meta, unknown.meta
    return known.model == unknown.model and one.identity.prompts == other.identity.prompts and one.resolution == other.resolution


def _attacked(known: Measured, unknown: Measured) -> tuple[str, str]:
    """Attack and radius of the side that is attacked; those of the clean images where none is."""
    cell = unknown if known.kind == "clean" else known
    return cell.attack, cell.eps


def told_apart(known: Records, unknown: Records, resamples: int = 1000) -> Replicates:
    """Every measure of every score; the two sides are resampled independently."""
    rule = separation(known, unknown)
    parts = [Resamples.of(records["id"], resamples) for records in (known, unknown)]
    smaller = min(part.n for part in parts)
    counts = np.concatenate([np.concatenate(list(part.chunks())) for part in parts], axis=1) if smaller else np.ones((0, rule.n))
    draws = {name: stretched(values, smaller).clip(0, 1) for name, values in rule.evaluate(counts).items()}
    return Replicates(dict(rule), draws, {}, samples=tuple((part.seed, part.key, part.n) for part in parts))


def names_of(results: Results, pair: Pair) -> tuple[str, ...]:
    """Labels of a row: `LABELS`."""
    known, unknown = pair
    attack, eps = _attacked(known, unknown)
    side = "none" if known.kind == unknown.kind == "clean" else "known" if known.kind != "clean" else "unknown"
    models, sets, attacks = (results.labels[axis] for axis in ("model", "dataset", "attack"))
    return sets[known.dataset], sets[unknown.dataset], side, attacks[attack], eps, models[known.model]


def _entry(numbers: Replicates, name: str) -> Entry:
    return Entry(*numbers.interval(name)) if name in numbers.values else Entry()
