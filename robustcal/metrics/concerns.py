"""Which numbers a validity flag concerns."""

from __future__ import annotations

from collections.abc import Iterable

#: Numbers of which predictions alone are right or wrong; all others need the probabilities too.
OF_PREDICTIONS = ("accuracy", "h")
#: Flags that leave those as they are and make all others a mixture that describes nothing.
OF_PROBABILITIES = ("accuracy-only",)


def concerning(number: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Those of the flags that make this number doubtful.

    >>> concerning("accuracy", ["few-classes", "accuracy-only"]), concerning("ece", ["accuracy-only"])
    (('few-classes',), ('accuracy-only',))
    """
    return tuple(flag for flag in flags if number not in OF_PREDICTIONS or flag not in OF_PROBABILITIES)


def is_valid(number: str, flags: Iterable[str]) -> bool:
    """Whether a number with these flags means anything."""
    return not set(concerning(number, flags)) & set(OF_PROBABILITIES)
