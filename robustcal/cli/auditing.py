"""``verify``: what it calls and prints. Exit status 0 the run holds, 1 refuted, 2 could not be checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import registry
from ..types import UserError

STATUS = {"holds": 0, "refuted": 1, "not checked": 2}


def verify(options: argparse.Namespace) -> int:
    """``robustcal verify``."""
    for path in options.plugin:
        registry.load_plugin_file(path)
    if options.seed is not None and not 0 <= options.seed < 2**63:
        raise UserError(f"seed {options.seed} cannot be used; a seed is a whole number from 0 to 2**63 - 1")
    if len(options.by) > 200 or not options.by.isprintable():
        raise UserError("--by is a name of at most 200 characters in one line")
    if not (options.samples.isdecimal() and int(options.samples)):
        raise UserError(f"--samples '{options.samples}' is not a positive integer")
    from ..api import versions
    from ..audit.verb import verify as check
    from ..audit.words import text_of
    from ..records.signoff import write_signoff
    from ..records.store import Run

    signoff = check(
        Run.open(options.run, mends=False), samples=int(options.samples), seed=options.seed, stronger=options.stronger,
        cells=options.cells, table=Path(options.table) if options.table else None, by=options.by, device=options.device,
        versions=versions(), tell=lambda line: print(f"robustcal: {line}", file=sys.stderr),
    )  # fmt: skip
    print(text_of(signoff))
    if options.out:
        write_signoff(Path(options.out), signoff)
        print(f"signed off: {options.out}   {signoff.badge}")
    return STATUS[signoff.verdict]
