"""A sign-off as text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..records.signoff import SignOff, Stronger
from .stronger import FALL

#: Lines of one kind that are printed.
MOST = 20


def text_of(signoff: SignOff) -> str:
    """What was found, and what follows."""
    lines = [*_listed("contradicts the run", signoff.refuted), *_listed("not checked", signoff.unchecked)]
    lines += _listed("does not come out again", signoff.disagree)
    lines += [conclusion(signoff)] if signoff.samples else []
    lines += [stronger_words(part) for part in signoff.stronger]
    verdict = {"holds": "the run holds", "refuted": "the run is REFUTED", "not checked": "the run could NOT be checked whole"}
    return "\n".join([*lines, verdict[signoff.verdict]])


def conclusion(one: SignOff) -> str:
    """``64 of 64 records come out again; with 95 % confidence at least 95.4 % of the 21,504 do (--seed 7)``."""
    floats = f" ({one.float_only} as near as rounding lets attacks of these samples come)" if one.float_only else ""
    share = int(1000 * one.at_least) / 10  # a limit is never rounded up
    sure = f"all {one.population:,} do" if one.at_least == 1 else f"at least {share:.1f} % of the {one.population:,} do"
    likely = "" if one.samples == one.population else f"with {100 * one.confidence:g} % confidence "
    return f"{one.agree} of {one.samples} records come out again{floats}; {likely}{sure} (--seed {one.seed})"


def stronger_words(one: Stronger) -> str:
    """What far more attacking changes."""
    value, low, high = (f"{100 * share:.1f}" for share in (one.value, one.lo, one.hi))
    head = f"stronger attacks: {one.what}: {value} % [{low}, {high}] of {one.samples} drawn from {one.population:,}"
    if one.what == FALL:
        return f"{head}; robust accuracies, worst cases over the run's attacks, are too high by this share of themselves or more"
    return f"{head.replace(' % [', ' points [')}; the calibration errors under these attacks can be too low by as much"


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    rest = [f"{title}: {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [f"{title}: {line}" for line in lines[:MOST]] + rest
