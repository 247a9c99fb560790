"""Measured numbers beside published ones, with their difference. What a run lacks stays empty."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..registry import parse_spec
from ..types import Spec, UserError
from .captions import protocol
from .evaluate import Cell, Results
from .labels import sentence
from .stats import Interval, average, harmonic
from .tables import Column, Entry, Row, Table

PAPER = Path(__file__).parent / "paper"
#: Public name of a comparison -> its card.
CARDS = {"paper": "ucat.toml"}
AVERAGE = "Average"


@dataclass(frozen=True)
class Published:
    """The card, and the values as fractions by (table, method, attack, radius x 255, dataset, metric)."""

    card: dict[str, Any]
    values: dict[tuple[int, str, str, int, str, str], float]

    def axis(self, table: int, place: int) -> list[Any]:
        """The distinct keys of a table at one place of the tuple, in printed order."""
        return list(dict.fromkeys(key[place] for key in self.values if key[0] == table))


def read_published(name: str = "paper") -> Published:
    """The data card of a comparison.

    Raises:
        UserError: unknown name.
    """
    if name not in CARDS:
        raise UserError(f"unknown comparison '{name}'; there are: {', '.join(CARDS)}")
    card = tomllib.loads((PAPER / CARDS[name]).read_text())
    with open(PAPER / card["values"], newline="") as file:
        values = {
            (int(r["table"]), r["method"], r["attack"], int(r["eps_255"]), r["dataset"], r["metric"]): float(
                r["value"]
            )
            / 100
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


class Comparison:
    """One published table and the cells of a run that can stand beside it."""

    def __init__(self, published: Published, number: int, results: Results):
        self.published, self.number, self.results, self.card = published, number, results, published.card
        columns = [(key[4], key[5]) for key in published.values if key[0] == number]
        self.columns = list(dict.fromkeys(columns))
        sets = [d for d in published.axis(number, 4) if d != AVERAGE]
        everywhere = [d for table in (13, 16) for d in published.axis(table, 4) if d != AVERAGE]
        self.sets = sets or list(dict.fromkeys(everywhere))
        self.used: dict[str, Cell] = {}

    def table(self) -> Table:
        columns = [Column(d if m == "top1_acc" else m) for d, m in self.columns]
        rows = list(self.rows())
        card, number = self.card, str(self.number)
        parts = [f"Measured beside published (in %). Published: table {number} of {card['title']}; {card['source']}."]
        parts += [f"Its protocol: {card['backbone']}, {card['protocols'][number]}."]
        if number in card.get("caveats", {}):
            parts += [f"Note: {card['caveats'][number]}."]
        parts += [
            f"Measured: {protocol([c.meta for c in self.used.values()])}"
            if self.used
            else "Measured: the run has none of these cells."
        ]
        parts += ["Empty: not in the run. Averages are measured only where all data sets are."]
        if lacking := self.lacking():
            parts += [f"No attack of the run is that of the paper for {sentence(lacking)}."]
        name = f"compare-{number}"
        return Table(name, " ".join(parts), ("Attack", "Method", ""), tuple(columns), tuple(rows))

    def rows(self) -> Iterator[Row]:
        for attack in self.published.axis(self.number, 2):
            for radius in self.published.axis(self.number, 3):
                for i, method in enumerate(self.published.axis(self.number, 1)):
                    printed = [
                        self.published.values.get((self.number, method, attack, radius, *c)) for c in self.columns
                    ]
                    if all(value is None for value in printed):
                        continue
                    head = attack if radius == 0 else f"{attack} {radius}/255"
                    yield Row((head, method, "published"), tuple(Entry(v) for v in printed), rule=i == 0)
                    for model in self.models(method) or [None]:
                        found = [self.measured(model, attack, radius, *c) if model else None for c in self.columns]
                        label = f"measured: {self.results.labels['model'][model]}" if model else "measured"
                        yield Row((head, method, label), tuple(Entry(*x) if x else Entry() for x in found))
                        gaps = [_gap(x, v) for x, v in zip(found, printed)]
                        yield Row((head, method, "difference"), tuple(gaps))

    # -- what stands beside what -----------------------------------------------------------------------------------
    def models(self, method: str) -> list[str]:
        names = self.card["methods"].get(method, [])
        return [m for m in self.results.values("model") if _name(m) in names]

    def dataset(self, printed: str) -> str | None:
        names = {_bare(n) for n in [printed, *self.card["datasets"].get(printed, [])]}
        return next((d for d in self.results.values("dataset") if _bare(_name(d)) in names), None)

    def wanted(self, printed: str) -> str:
        """The spec of a published attack."""
        own = self.card.get("attacks_of", {}).get(str(self.number), {})
        return own.get(printed) or self.card["attacks"].get(printed, printed)

    def attack(self, printed: str, radius: int) -> tuple[str, str] | None:
        """The measured (attack, eps) with the published parameters at that radius."""
        wanted = parse_spec(self.wanted(printed))
        for attack, eps in dict.fromkeys((c.attack, c.eps) for c in self.results.cells):
            if _is(parse_spec(attack.split(" #")[0]), wanted) and Fraction(eps) == Fraction(radius, 255):
                return attack, eps
        return None

    def lacking(self) -> list[str]:
        """What would stand beside a published attack that the run lacks at every radius, a line for each."""
        radii = self.published.axis(self.number, 3)
        attacks = [a for a in self.published.axis(self.number, 2) if not any(self.attack(a, radius) for radius in radii)]
        return [f"{attack} ({self.wanted(attack)})" for attack in attacks]

    def cell(self, model: str, attack: str, radius: int, dataset: str) -> Cell | None:
        here, where = self.attack(attack, radius), self.dataset(dataset)
        return self.results.get(model, where, *here) if here and where else None

    def measured(self, model: str, attack: str, radius: int, dataset: str, metric: str) -> Interval | None:
        name = self.card["metrics"][metric]
        if name.startswith("h"):
            if radius == 0:
                return None
            clean, robust = (self.replicates(model, a, r, dataset) for a, r in (("clean", 0), (attack, radius)))
            found = harmonic(clean, robust, "accuracy" if name == "h" else "f1_at_3", name) if clean and robust else None
        else:
            found = self.replicates(model, attack, radius, dataset)
        return found.interval(name) if found is not None and name in found.values else None

    def replicates(self, model: str, attack: str, radius: int, dataset: str):
        cells = [self.cell(model, attack, radius, d) for d in (self.sets if dataset == AVERAGE else [dataset])]
        if not all(cells):
            return None
        self.used |= {cell.id: cell for cell in cells}
        return average([cell.numbers for cell in cells])


def _gap(found: Interval | None, printed: float | None) -> Entry:
    if found is None or printed is None:
        return Entry()
    return Entry(found.value - printed, found.lo - printed, found.hi - printed, signed=True)


def _is(attack: Spec, wanted: Spec) -> bool:
    """Whether an attack has the name, the variant and every parameter of the one wanted."""
    same = all(_number(attack.params.get(key)) == _number(value) for key, value in wanted.params.items())
    return same and (attack.name, attack.variant) == (wanted.name, wanted.variant)


def _number(text: Any) -> float | str:
    """A number to nine digits, also of ``1/255``; any other text as it is."""
    try:
        return float(f"{float(Fraction(str(text))):.9g}")
    except ValueError:
        return str(text)


def _name(spec: str) -> str:
    return parse_spec(spec.split(" #")[0]).name


def _bare(text: str) -> str:
    """Letters and digits only, lower case: how names are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
