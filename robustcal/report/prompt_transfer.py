"""The layout `prompt-transfer`: images attacked under one set of class prompts and read under another, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator

from ..registry import parse_spec
from ..types import Spec
from .again import members, usable
from .averages import entry_of
from .evaluate import Measured, Results
from .labels import short_labels
from .parts import column, finish
from .prompt_sets import without_prompts
from .stats import difference
from .tables import Entry, Row, Table

ATTACK = "reprompted"
NUMBERS = ("accuracy", "ece")


def prompt_transfer_tables(results: Results) -> list[Table]:
    """One table: accuracy and ECE by the prompts an attack was crafted and read with, and less those crafted as they are read."""
    cells = [cell for cell in results.cells if usable(cell.meta) and parse_spec(cell.attack.split(" #")[0]).name == ATTACK]
    rows, columns = list[Row](), [column(name, interval=True) for name in NUMBERS]
    columns += [column(name, f"Δ {column(name).title}", "less the same prompts", interval=True) for name in NUMBERS]
    order, sets = members(results), short_labels(without_prompts(cell.dataset)[0] for cell in cells)
    cells.sort(key=lambda cell: order.index((cell.attack, cell.eps)))
    cells.sort(key=lambda cell: (cell.meta.threat.eps, cell.meta.model_place, cell.model, cell.dataset, read_with(cell)))
    for cell in cells:
        same = next((other for other in cells if _is_same(cell, other)), None)
        model, dataset = results.labels["model"][cell.model], sets[without_prompts(cell.dataset)[0]]
        names = (cell.eps, model, dataset, read_with(cell), crafted_with(cell))
        new = bool(rows) and rows[-1].labels[:-1] != names[:-1]
        rows.append(Row(names, tuple(_entries(cell, same)), rule=new))
    what = (
        "Accuracy and ECE (in %) of images attacked under one set of class prompts and read under another, on the same weights."
        " Δ: less the same attack under the prompts that its images are read with, paired; empty where that is not in the run."
    )
    heads = ("Radius", "Model", "Data set", "Read with", "Crafted with")
    return [finish(results, "prompt-transfer", what, columns, rows, cells, heads)]


def crafted_with(cell: Measured) -> str:
    """The template that an attack was made under."""
    return str(parse_spec(cell.attack.split(" #")[0]).params["template"])


def read_with(cell: Measured) -> str:
    """The templates of a cell as an attack would name them; where classes have their own, the name of the set."""
    texts = cell.meta.templates
    return "|".join(texts) if all(isinstance(text, str) for text in texts) else without_prompts(cell.dataset)[1]


def _is_same(cell: Measured, other: Measured) -> bool:
    """Whether `other` is the cell read alike whose attack was made under those prompts, and is the same attack otherwise."""
    alike = all(getattr(cell, axis) == getattr(other, axis) for axis in ("model", "dataset", "eps"))
    return alike and crafted_with(other) == read_with(other) and _otherwise(cell) == _otherwise(other)


def _otherwise(cell: Measured) -> str:
    spec = parse_spec(cell.attack.split(" #")[0])
    return str(Spec(spec.name, spec.variant, {key: value for key, value in spec.params.items() if key != "template"}))


def _entries(cell: Measured, same: Measured | None) -> Iterator[Entry]:
    yield from (entry_of(cell.numbers, name) for name in NUMBERS)
    for name in NUMBERS:
        paired = same is not None and same is not cell and same.numbers.samples == cell.numbers.samples
        yield Entry(*difference(same.numbers, cell.numbers, name)[:3], signed=True) if paired and same else Entry()
