"""The layout `prompts`: how far accuracy and calibration move when only the class prompts change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..metrics.concerns import concerning
from ..registry import parse_spec
from ..types import Spec
from .again import members
from .averages import entry_of
from .captions import protocol
from .evaluate import Measured, Results
from .labels import sentence
from .stats import average, difference
from .tables import Column, Entry, Row, Table
from .words import METRICS, flag_meanings

NUMBERS = ("accuracy", "ece")
#: Prompts of a spec that names none: those of the data set's card.
DEFAULT = "card"


def without_prompts(dataset: str) -> tuple[str, str]:
    """A data set's spec without its prompts, and the name of those: `DEFAULT` where it names none.

    >>> without_prompts("pcam:prompts=published-typo:split=test")
    ('pcam:split=test', 'published-typo')
    """
    spec = parse_spec(dataset.split(" #")[0])
    rest = {key: value for key, value in spec.params.items() if key != "prompts"}
    return str(Spec(spec.name, spec.variant, rest)), str(spec.params.get("prompts") or DEFAULT)


def prompt_groups(results: Results) -> dict[tuple[str, str, str, str], dict[str, Measured]]:
    """(attack, radius, model, data set without prompts) -> prompts -> cell; of those with several prompts on the same samples."""
    found: dict[tuple[str, str, str, str], dict[str, Measured]] = {}
    for attack, eps in members(results):
        for cell in results.cells:
            if (cell.attack, cell.eps) == (attack, eps) and all(name in cell.numbers.values for name in NUMBERS):
                dataset, prompts = without_prompts(cell.dataset)
                found.setdefault((attack, eps, cell.model, dataset), {})[prompts] = cell
    return {key: cells for key, cells in found.items() if len(cells) > 1 and _same_samples(list(cells.values()))}


def _same_samples(cells: Sequence[Measured]) -> bool:
    return len({cell.numbers.samples for cell in cells}) == 1


def prompt_tables(results: Results) -> list[Table]:
    """One table: mean, least and largest accuracy and ECE over prompts, and the paired difference between the two."""
    groups, labels = prompt_groups(results), results.labels
    rows, last = list[Row](), ("", "")
    for (attack, eps, model, dataset), cells in groups.items():
        names = (labels["attack"][attack], eps, labels["model"][model], dataset, str(len(cells)))
        entries = tuple(entry for name in NUMBERS for entry in _spread(cells, name))
        rows.append(Row(names, entries, rule=(attack, eps) != last and bool(rows)))
        last = (attack, eps)
    columns = [column for name in NUMBERS for column in _columns(name)]
    prompts = dict.fromkeys(name for cells in groups.values() for name in cells)
    short = (
        f"Accuracy and ECE (in %) over class prompts {sentence(prompts)}, all else the same: mean, least and largest;"
        " spread, the largest less the least, with the interval of that paired difference [95 % interval]."
        " Attacks are made against the prompts that they are read with."
    )
    metas = [cell.meta for cells in groups.values() for cell in cells.values()]
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    caption = f"{short} {protocol(metas, versions)}" if metas else short
    heads = ("Attack", "Radius", "Model", "Data set", "Prompts")
    return [Table("prompts", caption, heads, tuple(columns), tuple(rows), flag_meanings(), short=short)]


def _columns(name: str) -> list[Column]:
    about = METRICS[name]
    titles = (("mean", True), ("least", False), ("largest", False), ("spread", True))
    return [Column(title, about.short, True, "", wide, metric=name) for title, wide in titles]


def _spread(cells: Mapping[str, Measured], name: str) -> Iterator[Entry]:
    numbers = sorted((cell.numbers for cell in cells.values()), key=lambda x: x.values[name])
    least, largest = numbers[0], numbers[-1]
    yield entry_of(average(numbers), name)
    for end in (least, largest):
        yield Entry(end.values[name], flags=concerning(name, end.flags))
    yield Entry(*difference(least, largest, name)[:3])
