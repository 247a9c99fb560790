"""`robustcal verify`: check a run against what is here, make drawn records again, and say what follows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbelow

from ..cell import Cell
from ..records.content import content_hash
from ..records.signoff import SignOff, Stronger
from ..records.store import DamagedShard, Run
from ..sweep.hardware import pick_device, threads_set
from ..types import UserError
from .claims import Findings, Here, claims_of
from .conclude import CONFIDENCE, at_least
from .draw import draw
from .repeat import CANNOT, FLOAT, UNLIKE, Repeater, grouped
from .stronger import stronger as try_stronger
from .table import unlike_rows

SAMPLES = 64


def verify(
    run: Run, *, samples: int = SAMPLES, seed: int | None = None, stronger: bool = False, cells: Sequence[str] = (),
    table: Path | None = None, by: str = "", device: str = "auto", versions: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> SignOff:  # fmt: skip
    """Check a run. Nothing in its folder is written or moved.

    Args:
        samples: records made again, drawn from all that can be.
        seed: of the draw; None draws one, which nobody can have known when the run was made.
        stronger: attack drawn survivors and confidences with far more.
        cells: beginnings of cell ids, or words of their titles; all cells by default.
        table: a table that is said to be of this run; default: its own cells.csv, where it has one.
        by: who checks.
        versions: of what computes.
        tell: told a line about what comes next.

    Raises:
        UserError: a run without records, no such cell, no such device.
    """
    seed = randbelow(2**31) if seed is None else seed
    every = run.cells()
    chosen = _chosen(run, every, cells)
    device = pick_device(device)
    findings = Findings()
    tell(f"{len(chosen)} cells: weights, data, prompts, ids, labels and derived columns")
    claims = claims_of(run, chosen, Here(), findings)
    compared = _compare_table(run, table, findings, tell)
    drawn = draw([claim.rows for claim in claims], samples, seed)
    repeater = Repeater(run, claims, device)
    population = sum(claim.rows for claim in claims)
    tell(f"{len(drawn)} of {population} records are made again on {device}, drawn with --seed {seed}")
    with threads_set(1):  # as a worker on a CPU: sums in the same order, and faster for a few images
        found = [one for at, rows in grouped(drawn) for one in repeater.check(claims[at], rows)]
    unlike = [one.line for one in found if one.state == UNLIKE]
    findings.unchecked += [one.line for one in found if one.state == CANNOT]
    looked = len(found) - sum(one.state == CANNOT for one in found)
    more: list[Stronger] = []
    if stronger and claims:
        tell("survivors and confidences are attacked with more")
        with threads_set(1):
            more = try_stronger(repeater, samples, seed)
    return SignOff(
        run=_content(run), cells=(len(claims), len(every)), samples=looked, agree=looked - len(unlike),
        float_only=sum(one.state == FLOAT for one in found), disagree=_lines(unlike), refuted=_lines(findings.refuted),
        unchecked=_lines(findings.unchecked), population=population,
        at_least=_limit(population, len(found), len(found) - looked + len(unlike)), confidence=CONFIDENCE, seed=seed,
        table=compared,
        command=_command(samples, seed, stronger, cells), by=by, date=datetime.now(UTC).date().isoformat(),
        versions=dict(versions or {}), stronger=tuple(more),
    )  # fmt: skip


def _chosen(run: Run, cells: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    if not cells:
        raise UserError(f"run '{run.path}' has no cells; robustcal bench fills it")
    for name in wanted:
        if not any(cell.id.startswith(name) or name in cell.title for cell in cells):
            raise UserError(f"no cell of '{run.path}' has an id that starts with '{name}', or it in its title: {cells[0].title}")
    return [cell for cell in cells if not wanted or any(cell.id.startswith(name) or name in cell.title for name in wanted)]


def _compare_table(run: Run, table: Path | None, findings: Findings, tell: Callable[[str], None]) -> bool:
    path = table or run.path / "cells.csv"
    if table is None and not path.is_file():
        return False
    tell(f"{path.name}: every number computed again from the records")
    try:
        findings.refuted += unlike_rows(run, path)
    except DamagedShard:  # the cell says so by itself
        findings.unchecked.append(f"{path.name}: a shard is damaged")
        return False
    return True


def _limit(population: int, drawn: int, unlike: int) -> float:
    """`at_least`; what could not be looked at counts as unlike."""
    return at_least(population, drawn, unlike) if drawn else 0.0


def _content(run: Run) -> str:
    try:
        return content_hash(run)
    except UserError:
        return ""


def _command(samples: int, seed: int, stronger: bool, cells: Sequence[str]) -> str:
    parts = ["robustcal", "verify", "RUN", "--samples", str(samples), "--seed", str(seed)]
    return shlex.join(parts + ["--stronger"] * stronger + (["--cells", *cells] if cells else []))


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple("".join(c if c.isprintable() else " " for c in text)[:2000] for text in texts)
