"""The file that `robustcal verify` signs off with: who attacked which records of a run again, when, and what came out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from ..cell import from_json
from ..types import UserError
from .store import write_atomically

FORMAT = 1
#: Bytes of a file that is read, and characters of a text in it.
MOST_BYTES, MOST_TEXT = 1 << 22, 2000


@dataclass(frozen=True)
class Stronger:
    """What came of attacking drawn records with far more: a share, or a rise, with its 95 % limits (fractions)."""

    what: str  #: "survivors that fall" or "rise of the gap between confidence and correctness"
    attacks: tuple[str, ...]
    samples: int
    population: int
    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class SignOff:
    """One check of one run.

    Attributes:
        run: `content.content_hash` of the run.
        cells: how many cells were drawn from, and how many there are.
        samples: records that were attacked again.
        agree: those that came out again, the ones within floating point (`float_only`) included.
        disagree: a line for each that did not.
        refuted, unchecked: a line for everything else that contradicts the run, and for what could not be looked at.
        population: records that were drawn from; of them at least the fraction `at_least` comes out again, with `confidence`.
        table: whether cells.csv was compared with the records.
    """

    run: str
    cells: tuple[int, int]
    samples: int
    agree: int
    float_only: int
    disagree: tuple[str, ...]
    refuted: tuple[str, ...]
    unchecked: tuple[str, ...]
    population: int
    at_least: float
    confidence: float
    seed: int
    table: bool
    command: str
    by: str
    date: str
    versions: Mapping[str, str]
    stronger: tuple[Stronger, ...] = ()
    format: int = FORMAT
    hash: str = ""

    @property
    def verdict(self) -> str:
        """``holds``, ``refuted``, or ``not checked`` where something could not be looked at."""
        if self.disagree or self.refuted:
            return "refuted"
        return "not checked" if self.unchecked or not self.samples else "holds"

    @property
    def badge(self) -> str:
        """``checked: 64 of 64, by whom, when``."""
        return f"checked: {self.agree} of {self.samples}, by {self.by or 'nobody named'}, {self.date}"


def as_bytes(signoff: SignOff) -> bytes:
    """The file: the same sign-off makes the same bytes, its own hash in it."""
    return _json(asdict(replace(signoff, hash=_hash(signoff))), indent=1)


def write_signoff(path: Path, signoff: SignOff) -> None:
    """Write the file. Raises `UserError`: it cannot be written."""
    write_atomically(path, as_bytes(signoff))


def read_signoff(data: bytes, where: str) -> SignOff:
    """The sign-off in a file that may be a stranger's. `where`: what to call the file.

    Raises:
        UserError: it is none, its hash is not its content's, or its numbers cannot be.
    """
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        found = json.loads(data.decode(), parse_constant=_refuse)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        signoff = from_json(SignOff, found)
        _check(signoff)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"'{where}' is no sign-off of robustcal verify: {str(error)[:120]}") from None
    if signoff.hash != _hash(signoff):
        raise UserError(f"'{where}' was changed after it was signed off: its hash is not that of its content")
    return signoff


def _check(one: SignOff) -> None:
    lines = (*one.disagree, *one.refuted, *one.unchecked)
    texts = (*lines, one.run, one.command, one.by, *one.versions.values(), *(part.what for part in one.stronger))
    texts += tuple(attack for part in one.stronger for attack in part.attacks)
    if not all(isinstance(text, str) and len(text) <= MOST_TEXT and text.isprintable() for text in texts):
        raise ValueError("it has a text that is no line")
    if len(one.cells) != 2 or not all(type(count) is int for count in one.cells):
        raise ValueError("cells are two counts")
    counts = (one.float_only, one.agree, one.samples, one.population)
    if list(counts) != sorted(counts) or one.float_only < 0 or one.agree + len(one.disagree) != one.samples:
        raise ValueError("its counts do not add up")
    shares = (one.at_least, one.confidence, *(x for part in one.stronger for x in (part.value, part.lo, part.hi)))
    if not all(math.isfinite(share) and -1 <= share <= 1 for share in shares):
        raise ValueError("a share is no fraction")
    date.fromisoformat(one.date)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _hash(signoff: SignOff) -> str:
    return "sha256:" + hashlib.sha256(_json(asdict(replace(signoff, hash="")))).hexdigest()


def _json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
