"""Classes that a text head cannot tell apart, or that their names do not: found once, said everywhere alike.

A head with equal rows gives equal logits whatever the image shows: its accuracy is that of guessing among these classes
and its confidence is split between them, so the calibration error looks small for a reason that is not calibration.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .untrusted import some

if TYPE_CHECKING:
    from torch import Tensor

#: Cosine at and above which two rows count as one embedding. At logit scale 100 such rows give logits that differ by at
#: most 100 sqrt(2 (1 - 0.9999)) = 1.4 for any image; rounding alone stays below 1e-6 of cosine.
SAME = 0.9999
#: What is wrong -> the sentence about it; `{names}` are the classes.
SENTENCES = {
    "empty": "classes without a name: {names}",
    "same-name": "classes of one name: {names}",
    "root": "a class whose name is that of others without their qualifier: {names}",
    "same-row": "classes of one text embedding (cosine of " + f"{SAME} or more): " + "{names}",
}


@dataclass(frozen=True)
class Finding:
    """One group of classes: what is wrong (a key of `SENTENCES`), and their names, numbered where they are blank."""

    kind: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return SENTENCES[self.kind].format(names=some([f"'{name}'" for name in self.names], 5))


def alike(classnames: Sequence[str], head: Tensor | None = None) -> tuple[Finding, ...]:
    """The classes that cannot be told apart: by name, and by their rows of the text head (C, D, unit length) if given."""
    return (*_by_name(classnames), *(_by_row(classnames, head) if head is not None else ()))


def plain(name: str) -> str:
    """A name without what the eye may miss: Unicode form, case, and the number and kind of blanks."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def root(name: str) -> str:
    """A plain name without its qualifier: what stands in brackets, or after a comma.

    >>> root("crane (bird)"), root("Bus, double-decker"), root("(s)")
    ('crane', 'bus', '(s)')
    """
    whole = plain(name)
    return re.sub(r"\s*[\(\[].*[\)\]]$|\s*,.*$", "", whole) or whole


def _by_name(classnames: Sequence[str]) -> Iterator[Finding]:
    plains = [plain(name) for name in classnames]
    empty = tuple(f"class {label}" for label, name in enumerate(plains) if not name)
    if empty:
        yield Finding("empty", empty)
    groups: dict[str, list[str]] = {}
    longer: dict[str, list[str]] = {}
    for name, key in zip(classnames, plains, strict=True):
        if key:
            groups.setdefault(key, []).append(name)
            if root(name) != key:
                longer.setdefault(root(name), []).append(name)
    for key, names in groups.items():
        if len(names) > 1:
            yield Finding("same-name", tuple(names))
        if key in longer:
            yield Finding("root", (names[0], *longer[key]))


def _by_row(classnames: Sequence[str], head: Tensor) -> Iterator[Finding]:
    """Each row joins the first one that it equals. Memory: 512 rows of cosines at a time."""
    groups: dict[int, list[int]] = {}
    for start in range(0, len(head), 512):
        close = (head[start : start + 512] @ head.t()) >= SAME
        for label, first in enumerate(close.int().argmax(1).tolist(), start):  # the first of the largest values
            groups.setdefault(min(first, label), []).append(label)
    for labels in groups.values():
        if len(labels) > 1:
            yield Finding("same-row", tuple(classnames[label] or f"class {label}" for label in labels))
