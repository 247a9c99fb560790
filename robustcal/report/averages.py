"""Averages over datasets, and rows of a table with their ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..metrics.concerns import concerning, is_valid
from .evaluate import Measured, Results
from .stats import Replicates, average, harmonic, mark
from .tables import Entry, Row
from .words import word

SINGLE, MULTI = "single", "multi"


#: An attack and its radius.
Member = tuple[str, str]


class Averages:
    """Averages over datasets, kept: of one (attack, eps) over the datasets that all models have which have it at all."""

    def __init__(self, results: Results, task: str = SINGLE):
        self.results = results
        cells = [cell for cell in results.cells if cell.meta.task == task]
        self.datasets = list(dict.fromkeys(cell.dataset for cell in cells))
        self.models = list(dict.fromkeys(cell.model for cell in cells))
        self.clean_attack = next((cell.attack for cell in results.cells if cell.kind == "clean"), "")
        self._sides = {cell.dataset: cell.meta.resolution for cell in cells}
        self._places = {(cell.model, cell.dataset, cell.attack, cell.eps) for cell in cells}
        self._sets: dict[tuple[Member, ...], list[str]] = {}
        self._kept: dict[tuple[Any, ...], Replicates | None] = {}

    @property
    def clean_member(self) -> Member:
        return self.clean_attack, "0"

    def sets(self, *members: Member) -> list[str]:
        """The datasets that every shown model has at each of these that it has anywhere.

        Shown is a model with a cell at one of them, besides the clean one. So what stands side by side is compared on the
        same datasets, and a model or attack that was not run on some of them does not hide the others.
        """
        if members not in self._sets:
            attacked = [member for member in members if member != self.clean_member] or members
            anywhere = {(model, *member) for model, _, *member in self._places}
            shown = [m for m in self.models if any((m, *member) in anywhere for member in attacked)]
            wanted = [(m, *member) for m in shown for member in members if (m, *member) in anywhere]
            has = self._places.__contains__
            found = [d for d in self.datasets if all(has((m, d, *member)) for m, *member in wanted)]
            self._sets[members] = found if wanted else []
        return self._sets[members]

    def get(self, model: str, attack: str, eps: str, sets: Sequence[str] | None = None) -> Replicates | None:
        """The average of one model, over `sets` in the place of those that `sets` of the attack and radius gives.

        None over datasets of several resolutions: those are several threat models.
        """
        over = tuple(self.sets((attack, eps)) if sets is None else sets)
        if len({self._sides.get(dataset) for dataset in over}) > 1:
            return None
        key = (model, attack, eps, over)
        if key not in self._kept:
            cells = [self.results.get(model, dataset, attack, eps) for dataset in over]
            numbers = [cell.numbers for cell in cells if cell is not None]
            self._kept[key] = average(numbers) if numbers and len(numbers) == len(cells) else None
        return self._kept[key]

    def clean(self, model: str, sets: Sequence[str] | None = None) -> Replicates | None:
        """The average over the clean images."""
        return self.get(model, *self.clean_member, sets) if self.clean_attack else None

    def harmonic(self, model: str, attack: str, eps: str, of: str = "accuracy", name: str = "h") -> Replicates | None:
        """H of the clean and the attacked average of a value over the same datasets, under the name given."""
        sets = self.sets((attack, eps), self.clean_member)
        clean, robust = self.clean(model, sets), self.get(model, attack, eps, sets)
        return harmonic(clean, robust, of, name) if clean and robust else None

    def harmonic_on(self, model: str, dataset: str, attack: str, eps: str) -> Replicates | None:
        """H of the clean and the attacked accuracy on one dataset."""
        clean, robust = (self.results.get(model, dataset, *where) for where in (self.clean_member, (attack, eps)))
        return harmonic(clean.numbers, robust.numbers) if clean and robust else None

    def mean_harmonic(self, model: str, attack: str, eps: str) -> Replicates | None:
        """Mean of the H on each of the datasets that `harmonic` is over."""
        asked = [self.harmonic_on(model, dataset, attack, eps) for dataset in self.sets((attack, eps), self.clean_member)]
        found = [h for h in asked if h is not None]
        return average(found) if found and len(found) == len(asked) else None


Pick = Callable[[str], Replicates | Measured | None]


def fill(models: Sequence[str], columns: Sequence[tuple[str, Pick]]) -> dict[str, list[Entry]]:
    """Entries by model for one block of rows, ranked. A column is a metric name and what yields its numbers."""
    rows: dict[str, list[Entry]] = {model: [] for model in models}
    for name, pick in columns:
        found = {model: pick(model) for model in models}
        numbers = {m: x.numbers if isinstance(x, Measured) else x for m, x in found.items() if x is not None}
        numbers = {m: x for m, x in numbers.items() if name in x.values}
        ranks = ranked(numbers, name)
        for model in models:
            rows[model].append(entry_of(numbers.get(model), name, ranks.get(model, "")))
    return rows


def entry_of(numbers: Replicates | None, name: str, rank: str = "") -> Entry:
    """A number of a table with its limits and the flags that concern it; empty where there is none."""
    if numbers is None or name not in numbers.values:
        return Entry()
    return Entry(*numbers.interval(name), concerning(name, numbers.flags), rank)


def ranked(numbers: Mapping[str, Replicates], name: str) -> dict[str, str]:
    """Model -> of `tables.RANKS`. Where several share the best value each is "best" and none is second; all alike, none is.

    A number that means nothing under its attack takes no part.
    """
    numbers = {model: x for model, x in numbers.items() if is_valid(name, x.flags)}
    if len(numbers) < 2 or word(name).better == "none":
        return {}
    values = {model: round(x.values[name], 12) for model, x in numbers.items()}
    marks = mark(numbers, name, direction=word(name).better)
    top = [values[model] for model, found in marks.items() if found.startswith("best")]
    second = [values[model] for model, found in marks.items() if found == "second" and [values[model]] != top]
    if not top or len({value for value in values.values() if value == value}) < 2:
        return {}
    sure = {model: "best significant" for model, found in marks.items() if found == "best" and second}
    ranks = {model: "best" for model, value in values.items() if value == top[0]}
    return {model: "second" for model, value in values.items() if [value] == second} | ranks | sure


def block(results: Results, models: Sequence[str], label: Sequence[str], columns: Sequence[tuple[str, Pick]]) -> list[Row]:
    """Rows of one block; models without a single number are left out."""
    filled = fill(models, columns)
    rows = [(model, entries) for model, entries in filled.items() if not all(entry.empty for entry in entries)]
    names = results.labels["model"]
    return [Row((*label, names[model]), tuple(entries), rule=i == 0) for i, (model, entries) in enumerate(rows)]
