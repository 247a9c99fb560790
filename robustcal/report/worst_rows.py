"""The rows of a report that no attack made alone: worst cases of accuracy and of calibration over the attacks of one radius."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..cell import Cell
from ..metrics import worst
from ..metrics.weighted import Means
from ..types import Records
from .merge import Source
from .stats import Replicates

#: Kinds and goals of attack whose per-sample worst case is a lower bound of accuracy.
HARMFUL_KINDS, HARMFUL_GOALS = ("white-box", "black-box", "transfer"), ("untargeted", "targeted")
#: Numbers of a worst case of calibration: its accuracy is that of samples chosen for their gap, no attack's.
OF_CALIBRATION = (
    "ece", "ece_debiased", "ece_l2", "mce", "gap", "overconfidence", "underconfidence", "adaptive_ece", "ks", "mean_gap",
)  # fmt: skip
#: An attacked cell with its records.
Held = tuple[Source, Cell, Records]


@dataclass(frozen=True)
class Worst:
    """A worst case: its name, which cells count, which set of them has one, and how rows are chosen."""

    name: str
    counts: Callable[[Cell], bool]
    worth: Callable[[Sequence[Cell]], bool]
    combine: Callable[[Sequence[Records], Sequence[str]], dict[str, np.ndarray]]

    def meta(self, cells: Sequence[Cell]) -> Cell:
        """What defines the row: the cells it was taken over."""
        cells = sorted(cells, key=lambda cell: cell.id)
        members = tuple(cell.id for cell in cells)
        returns = " or ".join(sorted({cell.threat.returns for cell in cells}))
        identity = replace(cells[0].identity, attack=self.name, threat=replace(cells[0].threat, returns=returns))
        digest = hashlib.sha256(f"{self.name}\n".encode() + "\n".join(members).encode()).hexdigest()[:16]
        return replace(
            cells[0], id=digest, identity=identity, kind="worst", accuracy_only=any(cell.accuracy_only for cell in cells),
            members=members, over=tuple(cell.attack for cell in cells),
        )  # fmt: skip

    def title(self, norm: str) -> str:
        """The row's attack, for people."""
        return self.name if norm == "linf" else f"{self.name} {norm}"


def _breaks_labels(cell: Cell) -> bool:
    return cell.kind in HARMFUL_KINDS and cell.threat.goal in HARMFUL_GOALS


def _moves_confidence(cell: Cell) -> bool:
    return cell.kind in HARMFUL_KINDS and cell.task == "single" and not cell.accuracy_only


def _several(cells: Sequence[Cell]) -> bool:
    return len({cell.attack for cell in cells}) > 1


def _some_aim_at_calibration(cells: Sequence[Cell]) -> bool:
    """Attacks on the label alone say little of the worst calibration: one at least aims at the confidence."""
    return _several(cells) and any(cell.threat.goal not in HARMFUL_GOALS for cell in cells)


ACCURACY = Worst("worst", _breaks_labels, _several, worst.worst_case)
CALIBRATION = Worst("worst-calibration", _moves_confidence, _some_aim_at_calibration, worst.worst_calibration)
WORST = (ACCURACY, CALIBRATION)


def worst_ids(sources: Iterable[Source]) -> dict[str, Source]:
    """The ids that worst cases will have, each with one of its members; from what defines cells, nothing is read."""
    groups: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        key = (source.names["model"], source.names["dataset"], str(source.cell.eps), source.cell.threat.norm)
        groups.setdefault(key, []).append(source)
    found = {}
    for group in groups.values():
        for kind in WORST:
            members = [source for source in group if kind.counts(source.cell)]
            if members and kind.worth([source.cell for source in members]):
                found[kind.meta([source.cell for source in members]).id] = members[0]
    return found


def worst_rows(held: Sequence[Held], norm: str) -> Iterator[tuple[Cell, Mapping[str, str], Records, Source]]:
    """The worst cases over attacked cells of one model, data set, radius and norm: cell, names, records, one member."""
    for kind in WORST:
        counting = [member for member in held if kind.counts(member[1])]
        same = [m for m in counting if np.array_equal(m[2]["id"], counting[0][2]["id"])]
        if same and kind.worth([meta for _, meta, _ in same]):
            source = same[0][0]
            combined = kind.combine([records for _, _, records in same], [member.names["attack"] for member, _, _ in same])
            yield kind.meta([meta for _, meta, _ in same]), {**source.names, "attack": kind.title(norm)}, combined, source


def mean_gap(records: Records) -> Means:
    """mean_gap: the mean of |confidence - correctness| over samples; no binned calibration error is larger (`worst.gaps`)."""
    return Means(worst.gaps(records)[:, None], lambda means: {"mean_gap": means[..., 0]})


def of_calibration(numbers: Replicates) -> Replicates:
    """The numbers that a worst case of calibration has."""
    parts: dict[str, Any] = {
        part: {name: found for name, found in getattr(numbers, part).items() if name in OF_CALIBRATION}
        for part in ("values", "draws", "limits", "plain", "outcomes", "unseen")
    }
    return replace(numbers, **parts, tested=numbers.tested & set(OF_CALIBRATION))


def is_of_calibration(cell: Cell) -> bool:
    """Whether a row is a worst case of calibration."""
    return cell.kind == "worst" and cell.identity.attack == CALIBRATION.name
