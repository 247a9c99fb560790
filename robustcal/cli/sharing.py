"""What others see: ``pack`` and ``unpack``, ``leaderboard``, ``push``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..types import UserError


def pack(options: argparse.Namespace) -> int:
    """``robustcal pack``."""
    from ..leaderboard.pack import pack as write
    from ..leaderboard.pack import template_of
    from ..records.store import Run

    run = Run.open(options.run) if options.run else None
    if options.template:
        print(template_of(run))
        return 0
    if run is None or not options.out:
        raise UserError("pack needs a run and a file: robustcal pack RUN --out FILE (or --template, for a card to fill in)")
    card, signoff = (Path(path) if path else None for path in (options.card, options.signoff))
    made = write(run, Path(options.out), card, logits=options.logits, signoff=signoff)
    size = Path(options.out).stat().st_size / 1e6
    print(f"packed: {options.out}   {made.cells} cells, {size:.1f} MB\ncontent: {made.content}\nrecords: {made.records}")
    if card is None:
        print("no card: robustcal pack RUN --template writes one to fill in", file=sys.stderr)
    return 0


def unpack(options: argparse.Namespace) -> int:
    """``robustcal unpack``."""
    from ..leaderboard.reading import read_submission

    out = Path(options.out)
    if out.exists():
        raise UserError(f"'{out}' exists; choose another --out")
    found = read_submission(Path(options.file), out)
    print(f"unpacked: {out}   {len(found.run.cells())} cells, records {found.records}")
    return 0


def leaderboard(options: argparse.Namespace) -> int:
    """``robustcal leaderboard``."""
    from ..leaderboard.verb import leaderboard as make

    made = make(options.files, options.out, tables=options.published, title=options.title)
    print(f"{made.models} rows in {made.tables} tables: {made.index}")
    for line in made.refused:
        print(f"robustcal: {line}", file=sys.stderr)
    return 2 if made.refused else 0


def push(options: argparse.Namespace) -> int:
    """``robustcal push``."""
    from ..leaderboard.push import push as send

    card = Path(options.card) if options.card else None
    print(send(Path(options.run), options.repo, options.results, card, dry=options.dry_run))
    return 0
