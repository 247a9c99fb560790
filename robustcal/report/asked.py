"""The layout `metrics`: the numbers of metrics that were asked for, one row per cell."""

from __future__ import annotations

from ..registry import parse_spec
from .averages import block
from .captions import protocol
from .evaluate import Results
from .stats import Replicates
from .tables import Column, Row, Table
from .words import word


def asked_names(results: Results) -> list[tuple[str, str]]:
    """(metric spec, returned name) of everything that was asked for and that some cell has."""
    return list(dict.fromkeys((spec, name) for cell in results.cells for spec, n in cell.asked.items() for name in n.values))


def column_names(results: Results, taken: tuple[str, ...] = ()) -> dict[tuple[str, str], str]:
    """A distinct name for each of `asked_names`: the name itself, or with its spec where that has parameters of its own.

    The spec stands there too where a name is `taken` or returned twice.
    """
    pairs = asked_names(results)
    names = [name for _, name in pairs]
    return {(s, n): f"{n} ({s})" if parse_spec(s).params or n in taken or names.count(n) > 1 else n for s, n in pairs}


def metric_tables(results: Results) -> list[Table]:
    """One table: attack, radius, data set and model down, the numbers asked for across, each with its interval."""
    names = column_names(results)
    if not names:
        return []
    columns = tuple(_column(title, name) for (_, name), title in names.items())
    rows: list[Row] = []
    for attack, eps, dataset in dict.fromkeys((c.attack, c.eps, c.dataset) for c in results.cells):
        def pick(model: str, spec: str) -> Replicates | None:
            cell = results.get(model, dataset, attack, eps)
            return cell.asked.get(spec) if cell else None

        label = (results.labels["attack"][attack], eps, results.labels["dataset"][dataset])
        picks = [(name, lambda model, spec=spec: pick(model, spec)) for spec, name in names]
        rows += block(results, results.values("model"), label, picks)
    versions = results.runs[0].header.get("versions", {}) if results.runs else {}
    about = protocol([cell.meta for cell in results.cells], versions)
    specs = ", ".join(dict.fromkeys(spec for spec, _ in names))
    caption = f"Asked for: {specs}. Fractions in %. [95 % interval over samples]. {about}"
    return [Table("metrics", caption, ("Attack", "Radius", "Data set", "Model"), columns, tuple(rows))]


def _column(title: str, name: str) -> Column:
    about = word(name)
    percent = about.unit == "fraction"
    return Column(title, "", percent, about.better, True, 2 if percent else 3)
