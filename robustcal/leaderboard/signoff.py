"""The sign-off that ``robustcal verify`` writes: who attacked which part of a run again, when, and what came out."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import UserError


@dataclass(frozen=True)
class SignOff:
    """What a badge says. `content`: hash of the records that were looked at."""

    content: str
    by: str
    when: str
    drawn: int
    same: int

    @property
    def holds(self) -> bool:
        return 0 < self.drawn == self.same


def words_of(one: SignOff) -> str:
    """``checked: 64 of 64, by whom, when``."""
    return f"checked: {one.same} of {one.drawn}, by {one.by}, {one.when}"


def read_signoff(data: bytes, where: str) -> SignOff:
    """The sign-off in a file."""
    raise UserError(f"'{where}' is no sign-off")
