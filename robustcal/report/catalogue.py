"""What the registered metrics declare: parameters, needed records and columns, direction and unit of their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..registry import ROOT, Plugin, parse_spec, register
from ..types import Records, UserError
from .guarded import guarded

#: The metrics behind the columns of cells.csv.
CELL_METRICS = ("accuracy", "calibration", "scores", "uncertainty")

#: Bins of a calibration number that does not say how many.
BINS = 15

#: What a metric may declare.
DECLARED = {"direction": ("higher", "lower", "zero", "none"), "unit": ("fraction", "nats", "log10", "")}

#: A spec such as ``calibration:bins=20``, or a function of records.
Metric = str | Callable[..., Mapping[str, float]]


def metric_function(metric: Metric) -> Callable[..., Mapping[str, float]]:
    """The function of a metric spec, its parameters filled in.

    It raises `UserError` where the parameters are at fault (what fails with them works with the defaults), and where a
    metric that is not ours fails or returns anything but numbers. One number is named after its metric.

    Raises:
        UserError: a wrong spec; a direction or unit that there is not.
    """
    if callable(metric):
        return guarded(metric, getattr(metric, "__name__", type(metric).__name__))
    spec = register.metric.spec(metric)
    plugin, arguments = register.metric.arguments(spec)
    _check_declared(plugin)

    def measure(*records: Records) -> Mapping[str, float]:
        try:
            found: Mapping[str, float] = plugin.make(*records, **arguments)
            return found
        except (ValueError, ArithmeticError, MemoryError) as error:
            if not spec.params or not _works_by_default(spec.name, records):
                raise
            raise UserError(f"metric '{metric}' does not work with its parameters: {error or type(error).__name__}") from error

    return measure if ROOT in Path(plugin.origin).parents else guarded(measure, spec.name)


def with_bins(metric: Metric, bins: int | None) -> Metric:
    """A metric over so many bins, if it has bins and does not say how many itself; None changes nothing.

    >>> with_bins("calibration", 20), with_bins("calibration:bins=5", 20), with_bins("accuracy", 20)
    ('calibration:bins=20', 'calibration:bins=5', 'accuracy')
    """
    if callable(metric) or bins is None:
        return metric
    spec = parse_spec(metric)
    has_bins = "bins" in inspect.signature(register.metric.get(spec.name).make).parameters
    return str(replace(spec, params={**spec.params, "bins": bins})) if has_bins and "bins" not in spec.params else metric


def _check_declared(plugin: Plugin) -> None:
    for key, allowed in DECLARED.items():
        given = plugin.meta.get(key, allowed[-1])
        for value in given.values() if isinstance(given, Mapping) else [given]:
            if value not in allowed:
                there_are = ", ".join(map(repr, allowed))
                raise UserError(f"metric '{plugin.name}' declares the {key} {value!r}; there are: {there_are}")


def _works_by_default(name: str, records: tuple[Records, ...]) -> bool:
    try:
        plugin, arguments = register.metric.arguments(register.metric.spec(name))
        plugin.make(*records, **arguments)
    except Exception:  # whatever it is, the parameters are not to blame
        return False
    return True


def needs_clean(metric: Metric) -> bool:
    """Whether a metric takes the clean records as its second argument."""
    make = metric if callable(metric) else register.metric.get(register.metric.spec(metric).name).make
    kinds = [parameter.kind for parameter in inspect.signature(make).parameters.values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(kind in positional for kind in kinds) > 1


def columns_of(metrics: Iterable[Metric] = CELL_METRICS) -> set[str] | None:
    """Columns of the records that these metrics read, and the id; None where one of them does not say."""
    found = {"id", "correct"}
    for metric in metrics:
        plugin = None if callable(metric) else register.metric.get(register.metric.spec(metric).name)
        columns = plugin.meta.get("columns") if plugin else None
        if columns is None:
            return None
        found.update(columns)
    return found


def direction_of(name: str) -> str:
    """Which way is better for a returned name: "higher", "lower", "zero" (nearest to 0) or "none"."""
    return declarations().get(name, ("none", ""))[0]


def unit_of(name: str) -> str:
    """Unit of a returned name: "fraction" (shown as percent), "nats", ..., or ""."""
    return declarations().get(name, ("none", ""))[1]


def declarations() -> dict[str, tuple[str, str]]:
    """(direction, unit) of every name that a registered metric declares."""
    return {name: both for entry in register.metric.entries() for name, both in declared(entry.name).items()}


def declared(metric: Metric) -> dict[str, tuple[str, str]]:
    """(direction, unit) of every name that one metric declares; a function that is not registered declares none.

    A metric declares one string for the one value it is named after, or a mapping for several.
    """
    if callable(metric):
        return {}
    plugin = register.metric.get(register.metric.spec(metric).name)
    direction, unit = plugin.meta.get("direction", "none"), plugin.meta.get("unit", "")
    names = [*direction] if isinstance(direction, Mapping) else []
    names += [name for name in unit if name not in names] if isinstance(unit, Mapping) else []
    return {
        name: (
            direction.get(name, "none") if isinstance(direction, Mapping) else direction,
            unit.get(name, "") if isinstance(unit, Mapping) else unit,
        )
        for name in names or [plugin.name.replace("-", "_")]
    }
