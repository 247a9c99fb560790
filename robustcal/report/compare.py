"""Measured numbers beside published ones, with their difference. What a run lacks stays empty."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..registry import parse_spec
from ..types import UserError
from .averages import entry_of
from .captions import protocol
from .evaluate import Measured, Results
from .labels import sentence
from .pairing import (
    Facts,
    attack_card,
    attack_on,
    attack_told,
    bare,
    dataset_name,
    differences,
    facts_of,
    method_of,
    wanted_attack,
    wanted_of,
)
from .stats import Replicates, average, harmonic
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

PAPER = Path(__file__).parent / "paper"
#: Former names of comparisons.
RENAMED = {"paper": "ucat"}
AVERAGE = "Average"


@dataclass(frozen=True)
class Published:
    """The card, and the values as fractions by (table, method, attack, radius x 255, dataset, metric)."""

    card: dict[str, Any]
    values: dict[tuple[int, str, str, int, str, str], float]

    def axis(self, table: int, place: int) -> list[Any]:
        """The distinct keys of a table at one place of the tuple, in printed order."""
        return list(dict.fromkeys(key[place] for key in self.values if key[0] == table))


def comparisons() -> list[str]:
    """The names of all comparisons: one card each, ``paper/NAME.toml``."""
    return sorted(path.stem for path in PAPER.glob("*.toml"))


def read_published(name: str = "ucat") -> Published:
    """The data card of a comparison.

    Raises:
        UserError: unknown name.
    """
    name = RENAMED.get(name, name)
    if name not in comparisons():
        raise UserError(f"unknown comparison '{name}'; there are: {', '.join(comparisons())}")
    card = tomllib.loads((PAPER / f"{name}.toml").read_text())
    with open(PAPER / card["values"], newline="") as file:
        values = {
            (int(r["table"]), r["method"], r["attack"], int(r["eps_255"]), r["dataset"], r["metric"]): float(r["value"]) / 100
            for r in csv.DictReader(file)
        }
    return Published(card, values)


def compare_with(name: str, results: Results, chosen: Sequence[str]) -> list[Table]:
    """The published tables of the chosen layouts, each method with a measured and a difference row below it.

    Raises:
        UserError: no published table belongs to any of the layouts.
    """
    published = read_published(name)
    return [Comparison(published, number, results).table() for number in numbers_of(name, chosen)]


def numbers_of(name: str, chosen: Sequence[str]) -> list[int]:
    """The numbers of the published tables that belong to the chosen layouts.

    Raises:
        UserError: unknown comparison, or no table belongs to any of the layouts.
    """
    known = read_published(name).card["layouts"]
    numbers = list(dict.fromkeys(number for layout in chosen for number in known.get(layout, [])))
    if not numbers:
        raise UserError(f"no published table belongs to layout {', '.join(chosen)}; --compare {name} knows: {', '.join(known)}")
    return numbers


@dataclass(frozen=True)
class Place:
    """A row of a published table that a model might fill. `radius`: times 255."""

    method: str
    model: str
    attack: str
    radius: int


class Comparison:
    """One published table and the cells of a run that can stand beside it."""

    def __init__(self, published: Published, number: int, results: Results):
        self.published, self.number, self.results, self.card = published, number, results, published.card
        self.unstated = self.card["tables"][str(number)].get("unstated", "")  # what the source leaves open
        self.columns = list(dict.fromkeys((key[4], key[5]) for key in published.values if key[0] == number))
        sets = [d for d in published.axis(number, 4) if d != AVERAGE]
        everywhere = [d for table in self.card["averaged"] for d in published.axis(table, 4) if d != AVERAGE]
        self.sets = sets or list(dict.fromkeys(everywhere)) or list(self.card["sets"])
        self.used: dict[str, Measured] = {}
        self.differing: dict[tuple[str, str], list[str]] = {}  # (whose, difference in words) -> labels of those that differ
        self.named: dict[tuple[str, str, str], list[tuple[Facts, Measured]]] = {}
        for cell in results.cells:
            name = dataset_name(parse_spec(cell.meta.dataset.split(" #")[0]))
            key = (cell.model, bare(name), _name(cell.meta.attack))
            self.named.setdefault(key, []).append((facts_of(cell.meta), cell))

    def table(self) -> Table:
        columns = [Column(d if m == "top1_acc" else m) for d, m in self.columns]
        rows = list(self.rows())
        card, stated = self.card, self.card["tables"][str(self.number)]
        what = stated.get("what", f"table {self.number}")
        parts = [f"Measured beside published (in %). Published: {what} of {card['title']}; {card['source']}."]
        parts += [f"Its protocol: {self.told()}."]
        if "caveat" in stated:
            parts += [f"Note: {stated['caveat']}."]
        if self.unstated:
            parts += [f"Nothing is set beside: the source does not state {self.unstated} of these numbers."]
            return Table(f"compare-{self.number}", " ".join(parts), ("Attack", "Method", ""), tuple(columns), tuple(rows))
        measured = protocol([c.meta for c in self.used.values()]) if self.used else "the run has none of these cells."
        parts += [f"Measured: {measured}"]
        parts += ["Empty: not in the run, or not what was published. Averages are measured only where all data sets are."]
        parts += [f"{sentence(labels)}: {words}." for (_, words), labels in sorted(self.differing.items())]
        if lacking := self.lacking():
            parts += [f"No attack of the run is that of the paper for {sentence(lacking)}."]
        name = f"compare-{self.number}"
        return Table(name, " ".join(parts), ("Attack", "Method", ""), tuple(columns), tuple(rows), flag_meanings())

    def told(self) -> str:
        """The protocol of the published table in words, from what is compared."""
        stated = self.card["tables"][str(self.number)]
        if self.unstated:
            return str(stated["pretraining"][0])
        attacks = [attack_told(self.card, self.number, a) for a in self.published.axis(self.number, 2) if a != "clean"]
        trained = f"fine-tuned on {stated['trained_on'][0]}, {sentence(stated['inner'], 'or')}"
        sides = sorted({self.card["sets"][name].get("resolution", stated["resolution"]) for name in self.sets})
        images = f"images of {sentence(map(str, sides), 'or')} pixels a side"
        return f"{stated['pretraining'][0]}, {trained}; {sentence(attacks)}; {images}"

    def rows(self) -> Iterator[Row]:
        for attack in self.published.axis(self.number, 2):
            for radius in self.published.axis(self.number, 3):
                for i, method in enumerate(self.published.axis(self.number, 1)):
                    values = self.published.values
                    printed = [values.get((self.number, method, attack, radius, *c)) for c in self.columns]
                    if all(value is None for value in printed):
                        continue
                    head = attack if radius == 0 else f"{attack} {radius}/255"
                    yield Row((head, method, "published"), tuple(Entry(v) for v in printed), rule=i == 0)
                    for label, found in [] if self.unstated else self.measured_rows(method, attack, radius):
                        yield Row((head, method, label), tuple(found))
                        gaps = [_gap(x, v) for x, v in zip(found, printed)]
                        yield Row((head, method, "difference"), tuple(gaps))

    def measured_rows(self, method: str, attack: str, radius: int) -> list[tuple[str, list[Entry]]]:
        """Label and numbers of every model that has any to stand there; one empty row where none has."""
        names = self.card["methods"][method]["names"]
        found = []
        for model in (m for m in self.results.values("model") if method_of(_name(m)) in names):
            numbers = [self.measured(Place(method, model, attack, radius), *column) for column in self.columns]
            if not all(entry.empty for entry in numbers):
                found.append((f"measured: {self.results.labels['model'][model]}", numbers))
        return found or [("measured", [Entry() for _ in self.columns])]

    # -- what stands beside what -----------------------------------------------------------------------------------
    def cell(self, place: Place, dataset: str) -> Measured | None:
        """The cell that is what was published at this place. Where there is none, what the nearest differs in is noted."""
        wanted = wanted_of(self.card, self.number, place.method, place.attack, place.radius, dataset)
        attack = _name(attack_card(self.card, self.number, attack_on(self.card, place.attack, dataset))["spec"])
        names = dict.fromkeys(map(bare, [dataset, *self.card["sets"][dataset]["names"]]))
        held = [pair for name in names for pair in self.named.get((place.model, name, attack), [])]
        judged = [(differences(facts, wanted), cell) for facts, cell in held]
        if not judged:
            return None
        gaps, nearest = min(judged, key=lambda pair: len(pair[0]))
        for gap in gaps:
            labels = self.differing.setdefault((gap.of, str(gap)), [])
            label = self.results.labels[gap.of][getattr(nearest, gap.of)]
            labels.extend([label] if label not in labels else [])
        return None if gaps else nearest

    def lacking(self) -> list[str]:
        """What would stand beside a published attack that the run lacks at every radius, a line for each."""
        held = [facts for pairs in self.named.values() for facts, _ in pairs]
        wanted = {attack: wanted_attack(self.card, self.number, attack) for attack in self.published.axis(self.number, 2)}
        absent = [attack for attack, accepted in wanted.items() if all(differences(facts, accepted) for facts in held)]
        return [f"{attack} ({attack_told(self.card, self.number, attack)})" for attack in absent]

    def measured(self, place: Place, dataset: str, metric: str) -> Entry:
        name = self.card["metrics"][metric]
        if name.startswith("h"):
            if place.radius == 0:
                return Entry()
            clean = self.replicates(replace(place, attack="clean", radius=0), dataset)
            robust = self.replicates(place, dataset)
            found = harmonic(clean, robust, "accuracy" if name == "h" else "f1_at_3", name) if clean and robust else None
        else:
            found = self.replicates(place, dataset)
        return entry_of(found, name)

    def replicates(self, place: Place, dataset: str) -> Replicates | None:
        cells = [self.cell(place, d) for d in (self.sets if dataset == AVERAGE else [dataset])]
        whole = [cell for cell in cells if cell is not None]
        if len(whole) < len(cells):
            return None
        self.used |= {cell.id: cell for cell in whole}
        return average([cell.numbers for cell in whole])


def _gap(found: Entry, printed: float | None) -> Entry:
    if found.value is None or printed is None:
        return Entry()
    low, high = (None if bound is None else bound - printed for bound in (found.lo, found.hi))
    return Entry(found.value - printed, low, high, found.flags, signed=True)


def _name(spec: str) -> str:
    return parse_spec(spec.split(" #")[0]).name

