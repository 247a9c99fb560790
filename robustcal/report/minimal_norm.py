"""The layout `minimal-norm`: accuracy at every radius from the distances that one run of a minimal-norm attack found."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from ..metrics.weighted import Means
from ..types import Records, parse_radius, radius_text
from .again import readers
from .captions import protocol
from .evaluate import Measured, Results
from .parts import versions_of
from .stats import Replicates, replicates
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

#: The return rule of attacks that look for the nearest misclassified image.
NEAREST = "nearest-else-clean"
#: Radii of the table as shares of the largest that was looked at.
SHARES = (Fraction(0), Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))
#: Slack for rounding, relative: a sample at the largest radius counts as broken there.
ROUNDING = 1e-6


def nearest_cells(results: Results) -> list[Measured]:
    """The cells of minimal-norm attacks, with one label per image: of each norm those of the largest radius, which say all."""
    found = [c for c in results.cells if c.meta.threat.returns == NEAREST and c.meta.task == "single" and c.kind != "worst"]
    largest: dict[str, float] = {}
    for threat in (cell.meta.threat for cell in found):
        largest[threat.norm] = max(threat.eps, largest.get(threat.norm, 0))
    return [c for c in found if c.meta.threat.eps == largest[c.meta.threat.norm]]


def distances(records: Records, norm: str) -> np.ndarray:
    """Distance of each sample to the nearest misclassified image found: (N,); 0 where it is wrong as it is, else infinite."""
    wrong = ~np.asarray(records["correct"], dtype=bool)
    return np.where(wrong, np.asarray(records[norm], dtype=np.float64), np.inf)


def accuracy_at(records: Records, norm: str, radii: dict[str, float]) -> Means:
    """Share of samples farther than each radius: {name: share}."""
    far = distances(records, norm)[:, None] > np.array(list(radii.values())) * (1 + ROUNDING)
    return Means(far.astype(np.float64), lambda means: {name: means[..., i] for i, name in enumerate(radii)})


def minimal_norm_tables(results: Results) -> list[Table]:
    """One table per norm: data set, attack and model by radius, and the median distance."""
    found = nearest_cells(results)
    read = readers(results) if found else {}
    tables = []
    for norm, eps in dict.fromkeys((cell.meta.threat.norm, cell.eps) for cell in found):
        cells = [cell for cell in found if (cell.meta.threat.norm, cell.eps) == (norm, eps)]
        radii = {name: float(radius) for name, radius in _radii(parse_radius(cells[0].meta.eps))}
        names = [results.labels[axis] for axis in ("dataset", "attack", "model")]
        rows: list[Row] = []
        order = {axis: results.values(axis) for axis in ("dataset", "attack")}
        for cell in sorted(cells, key=lambda c: (order["dataset"].index(c.dataset), order["attack"].index(c.attack))):
            records = read[cell.id](("id", "correct", norm))
            head = tuple(label[getattr(cell, axis)] for label, axis in zip(names, ("dataset", "attack", "model")))
            at = _numbers(records, norm, radii)
            entries = [Entry(*at.interval(name)) for name in radii] + [_middle(records, norm)]
            rows.append(Row(head, tuple(entries), rule=bool(rows) and rows[-1].labels[:2] != head[:2]))
        columns = [Column(name if radius else "clean", "Accuracy", True, "higher", True) for name, radius in radii.items()]
        columns.append(Column(f"median distance{' x 255' if norm == 'linf' else ''}", "", False, "higher", False, 3))
        short = (
            f"Accuracy (in %) against the radius, from one run at {eps}: a sample counts as broken at every radius that is not"
            " below its distance to the nearest misclassified image found [95 % interval]. Median distance: over samples that"
            f" are right without attack, in the norm {norm}; empty where less than half were broken."
        )
        caption = f"{short} {protocol([cell.meta for cell in cells], versions_of(results))}"
        name = f"minimal-norm-{norm}"
        tables.append(Table(name, caption, ("Data set", "Attack", "Model"), tuple(columns), tuple(rows), flag_meanings(), short))
    return tables


def median(records: Records, norm: str) -> float | None:
    """Median distance of the samples that are right without attack; None where there is no such finite number."""
    found = distances(records, norm)
    found = np.sort(found[found > 0])
    if not len(found):
        return None
    middle = found[[(len(found) - 1) // 2, len(found) // 2]]
    return float(middle.mean()) if np.isfinite(middle).all() else None


def _middle(records: Records, norm: str) -> Entry:
    found = median(records, norm)
    return Entry(None if found is None else found * (255 if norm == "linf" else 1))


def _radii(largest: Fraction) -> Iterator[tuple[str, Fraction]]:
    for share in SHARES:
        yield radius_text(share * largest), share * largest


def _numbers(records: Records, norm: str, radii: dict[str, float]) -> Replicates:
    def at(records: Records) -> Means:
        return accuracy_at(records, norm, radii)

    return replicates(records, [at])
