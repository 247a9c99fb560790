"""Metrics of users: a mistake in one, also one that shows in resampling only, is one line that names the metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Real
from typing import Any

import numpy as np

from ..metrics.weighted import Means, Values, Weighted
from ..types import Records, UserError


def guarded(function: Callable[..., Any], metric: str) -> Callable[..., Mapping[str, float]]:
    """The same metric; what it raises, or returns instead of numbers, becomes a `UserError`. One number is named after it."""

    def measure(*records: Records) -> Mapping[str, float]:
        found = watched(function, metric, "" if isinstance(records[0], dict) else " on a resample")(*records)
        if _is_number(found):
            return {metric.replace("-", "_"): found}
        fault = watched(_fault, metric)(found)
        if fault:
            raise UserError(f"metric '{metric}' returned {fault}; it returns a number, or numbers by name")
        if isinstance(found, Means):
            found.combine = _shaped(found.combine, metric)
            found.rules = {name: watched(rule, metric, " in resampling") for name, rule in found.rules.items()}
        if isinstance(found, Weighted):
            found.evaluate, found.draws = (_shaped(call, metric) for call in (found.evaluate, found.draws))
        numbers: Mapping[str, float] = found
        return numbers

    return measure


def watched(function: Callable[..., Any], metric: str, where: str = "") -> Callable[..., Any]:
    """The function; whatever it raises names the metric."""

    @wraps(function)
    def call(*given: Any) -> Any:
        try:
            return function(*given)
        except UserError:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "; a metric changes copies, never the records" if "read-only" in said else ""
            raise UserError(f"metric '{metric}' failed{where}: {said}{hint}") from error

    return call


def _shaped(function: Callable[[np.ndarray], Values], metric: str) -> Callable[[np.ndarray], Values]:
    """The function of resampled means or weights (..., K), whose values must have the shape (...)."""
    inside = watched(function, metric, " in resampling")

    def call(given: np.ndarray) -> Values:
        found: Values = inside(given)
        for name, value in found.items():
            if np.shape(value) != given.shape[:-1]:
                expected, got = given.shape[:-1], np.shape(value)
                raise UserError(f"metric '{metric}' failed in resampling: '{name}' has shape {got} where {expected} is right")
        return found

    return call


def _fault(found: Any) -> str | None:
    """What is wrong with what a metric returned."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    wrong = (f"a {type(value).__name__} as {name!r}" for name, value in found.items() if not _is_number(value))
    return next(wrong, None)


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "biuf"
    return isinstance(value, (Real, np.bool_))
