"""Averages over datasets, and rows of a table with their ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .evaluate import Measured, Results
from .stats import Replicates, average, harmonic, mark
from .tables import Entry, Row
from .words import word

SINGLE, MULTI = "single", "multi"


class Averages:
    """Averages over datasets, kept: (model, attack, eps) -> Replicates, or None where a dataset is missing."""

    def __init__(self, results: Results, task: str = SINGLE):
        self.results = results
        cells = [cell for cell in results.cells if cell.meta.task == task]
        self.datasets = list(dict.fromkeys(cell.dataset for cell in cells))
        self.models = list(dict.fromkeys(cell.model for cell in cells))
        self.clean_attack = next((cell.attack for cell in results.cells if cell.kind == "clean"), "")
        self._kept: dict[tuple[str, str, str], Replicates | None] = {}

    def get(self, model: str, attack: str, eps: str) -> Replicates | None:
        key = (model, attack, eps)
        if key not in self._kept:
            cells = [self.results.get(model, dataset, attack, eps) for dataset in self.datasets]
            numbers = [cell.numbers for cell in cells if cell is not None]
            self._kept[key] = average(numbers) if numbers and len(numbers) == len(cells) else None
        return self._kept[key]

    def clean(self, model: str) -> Replicates | None:
        """The average over the clean images."""
        return self.get(model, self.clean_attack, "0") if self.clean_attack else None

    def harmonic(self, model: str, attack: str, eps: str, of: str = "accuracy", name: str = "h") -> Replicates | None:
        """H of the clean and the attacked average of a value, under the name given."""
        clean, robust = self.clean(model), self.get(model, attack, eps)
        return harmonic(clean, robust, of, name) if clean and robust else None

    def harmonic_on(self, model: str, dataset: str, attack: str, eps: str) -> Replicates | None:
        """H of the clean and the attacked accuracy on one dataset."""
        clean, robust = (self.results.get(model, dataset, *where) for where in ((self.clean_attack, "0"), (attack, eps)))
        return harmonic(clean.numbers, robust.numbers) if clean and robust else None

    def mean_harmonic(self, model: str, attack: str, eps: str) -> Replicates | None:
        """Mean over datasets of the H on each; None where a dataset is missing."""
        asked = [self.harmonic_on(model, dataset, attack, eps) for dataset in self.datasets]
        found = [h for h in asked if h is not None]
        return average(found) if found and len(found) == len(asked) else None


Pick = Callable[[str], "Replicates | Measured | None"]


def fill(models: Sequence[str], columns: Sequence[tuple[str, Pick]]) -> dict[str, list[Entry]]:
    """Entries by model for one block of rows, ranked. A column is a metric name and what yields its numbers."""
    rows: dict[str, list[Entry]] = {model: [] for model in models}
    for name, pick in columns:
        found = {model: pick(model) for model in models}
        numbers = {m: x.numbers if isinstance(x, Measured) else x for m, x in found.items() if x is not None}
        numbers = {m: x for m, x in numbers.items() if name in x.values}
        ranks = ranked(numbers, name)
        for model in models:
            cell = found[model]
            flags = tuple(cell.flags) if isinstance(cell, Measured) else ()
            limits = numbers[model].interval(name) if model in numbers else None
            rows[model].append(Entry(*limits, flags, ranks.get(model, "")) if limits else Entry())
    return rows


def ranked(numbers: Mapping[str, Replicates], name: str) -> dict[str, str]:
    """Model -> "best" (and significantly so) or "second"; nothing where the best value is shared by several."""
    if len(numbers) < 2 or word(name).better == "none":
        return {}
    values = {model: round(x.values[name], 12) for model, x in numbers.items()}
    marks = mark(numbers, name, direction=word(name).better)
    top = [values[model] for model, found in marks.items() if found.startswith("best")]
    second = [values[model] for model, found in marks.items() if found == "second"]
    if not top or top == second:
        return {}
    best = {model: "best" for model, found in marks.items() if found == "best"}
    return {model: "second" for model, value in values.items() if [value] == second} | best


def block(results: Results, models: Sequence[str], label: Sequence[str], columns: Sequence[tuple[str, Pick]]) -> list[Row]:
    """Rows of one block; models without a single number are left out."""
    filled = fill(models, columns)
    rows = [(model, entries) for model, entries in filled.items() if not all(entry.empty for entry in entries)]
    names = results.labels["model"]
    return [Row((*label, names[model]), tuple(entries), rule=i == 0) for i, (model, entries) in enumerate(rows)]
