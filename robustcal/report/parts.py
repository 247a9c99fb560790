"""What the layouts of a report are made of: which attacks and radii there are, columns, captions, a finished table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..metrics.concerns import is_valid
from .captions import SHORT_MARKS, marks_note, protocol
from .evaluate import Measured, Results
from .tables import Column, Row, Table
from .words import BINNED, METRICS, flag_meanings


def attacks_at(results: Results, eps: str) -> list[str]:
    """Attacks that ran at a radius, the worst case last."""
    here = {cell.attack for cell in results.cells if cell.eps == eps and cell.kind != "clean"}
    return [attack for attack in results.values("attack") if attack in here]


def radii(results: Results) -> list[str]:
    """Radii of attacked cells, ascending."""
    return [eps for eps in results.values("eps") if any(c.eps == eps and c.kind != "clean" for c in results.cells)]


def first_shown(results: Results) -> tuple[str | None, str]:
    """Attack and radius that figures and the page show first: harmful, its calibration valid where one's is; None without one."""
    cells = [c for c in results.cells if c.kind not in ("clean", "control", "shift") and "accuracy" in c.numbers.values]
    harmful, steps = {c.attack for c in cells if c.meta.task == "single"}, radii(results)
    for eps in [*steps[1:2], *steps]:
        found = shown_attack(results, [attack for attack in attacks_at(results, eps) if attack in harmful], eps)
        if found is not None:
            return found, eps
    return None, steps[0] if steps else "0"


def shown_attack(results: Results, attacks: Sequence[str], eps: str) -> str | None:
    """The last of these attacks, the worst case if there is one, whose calibration means something."""
    invalid = {c.attack for c in results.cells if c.eps == eps and not is_valid("ece", c.flags)}
    return next(reversed([a for a in attacks if a not in invalid] or list(attacks)), None)


def at_radius(eps: str) -> str:
    """``at radius 1/255``; shifts and clean images have none."""
    return "without a radius" if eps == "0" else f"at radius {eps}"


def clean_attacks(results: Results) -> list[tuple[str, str]]:
    return [(attack, "0") for attack in dict.fromkeys(c.attack for c in results.cells if c.kind == "clean")]


def column(name: str, title: str | None = None, group: str = "", interval: bool = False) -> Column:
    word = METRICS[name]
    percent = word.unit == "fraction"
    return Column(title or word.short, group, percent, word.better, interval, 2 if percent else 3, metric=name)


def finish(
    results: Results, name: str, what: str, columns: Sequence[Column], rows: Sequence[Row], cells: Iterable[Measured],
    labels: Sequence[str] = ("Attack", "Model"), lacking: str = "",
) -> Table:  # fmt: skip
    """A table with its captions. `lacking`: what is not in the run, see `ragged.missing`."""
    metas = [cell.meta for cell in cells]
    note = marks_note(any(column.interval for column in columns))
    short = " ".join(filter(None, [what, bins_words(results, columns), lacking]))
    caption = f"{short} {protocol(metas, versions_of(results))} {note}" if metas else f"{what} The run has no such cells."
    short = f"{short} {SHORT_MARKS}"
    return Table(name, caption, tuple(labels), tuple(columns), tuple(rows), flag_meanings(), short=short)


def bins_words(results: Results, columns: Iterable[Column]) -> str:
    return f"Calibration errors are over {results.bins} bins." if any(c.metric in BINNED for c in columns) else ""


def versions_of(results: Results) -> Mapping[str, str]:
    """Versions of what computed the first of the runs."""
    versions: Mapping[str, str] = results.runs[0].header.get("versions", {}) if results.runs else {}
    return versions
