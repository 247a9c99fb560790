"""What each subcommand calls and prints. Imports are inside, so that `--help` and `ls` stay instant."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..registry.specs import split_list
from ..registry.suites import job_of, seed_of
from ..types import UserError
from .sharing import leaderboard, pack, push, unpack

if TYPE_CHECKING:
    from ..sweep.plan import Failure

#: What `verify` found -> its exit status.
STATUS = {"holds": 0, "refuted": 1, "not checked": 2}

__all__ = [
    "bench", "check", "cite", "completion", "leaderboard", "ls", "pack", "push", "report", "train", "unpack", "verify",
]  # fmt: skip


def bench(options: argparse.Namespace) -> int:
    """``robustcal bench``."""
    chosen: dict[str, Any] = {
        "models": options.models, "attacks": options.attacks, "datasets": options.datasets, "eps": options.eps,
        "suite": options.suite, "limit": options.limit, "seed": options.seed,
    }  # fmt: skip
    batch_size = None if options.batch_size == "auto" else positive(options.batch_size, "--batch-size", " or auto")
    workers = positive(options.workers, "--workers")
    job = job_of(options.suite, options.device, workers, options.plugin, options.out)
    options.device, options.workers, options.plugin = job["device"], job["workers"], job["plugins"]
    if options.dry_run:
        return dry_run(options, chosen, batch_size)
    from .. import api
    from ..progress import Display

    with Display(verbose=options.verbose, quiet=options.quiet) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # failures are printed
        run = api.bench(
            **chosen, until=options.until, device=options.device, precision=options.precision, batch_size=batch_size,
            workers=options.workers, plugins=options.plugin, out=job["out"], progress=progress, strict=options.strict,
            engine=options.engine, skip_unreadable=options.skip_unreadable,
        )  # fmt: skip
    if options.no_report:
        print(f"cells: {run.path / 'cells.csv'}")
    elif job["report"]:
        print(run.report(**job["report"]))
    else:
        from ..report.report import text_table, write_report

        print(text_table(run.results))
        page = write_report(run.results, ["md", "tex", "diagrams", "html"], run.path / "report")[-1]
        print(f"\nrecords and cells.csv: {run.path}\nresults page:          {page}")
    for note in run.notes:
        progress.line(f"robustcal: {note}")  # those that were not said at the start
    return failed(run.failures)


def failed(failures: Sequence[Failure]) -> int:
    """Say on stderr what could not be done. The exit status: 0 if nothing, else 2."""
    for failure in failures:
        cost = f" ({failure.cells} cells)" if failure.cells > 1 else ""
        print(f"robustcal: failed: {failure}{cost}", file=sys.stderr)
    if failures:
        print("robustcal: everything else is computed; the same command tries what failed again", file=sys.stderr)
    return 2 if failures else 0


def positive(text: str | int | None, option: str, also: str = "") -> int | None:
    """An integer of at least 1; None stays None. `also`: what else the option takes, for the error."""
    if text is None:
        return None
    if not (str(text).isdecimal() and int(text)):
        raise UserError(f"{option} '{text}' is not a positive integer{also}")
    return int(text)


def dry_run(options: argparse.Namespace, chosen: Mapping[str, Any], batch_size: int | None) -> int:
    """``robustcal bench --dry-run``: the plan and its cost; nothing computed, nothing fetched, nothing written."""
    from ..api import plan_request
    from ..sweep.engine import pick_engine
    from .dry_run import screen

    engine = pick_engine(options.engine)
    request, notes = plan_request(**chosen, plugins=options.plugin)
    precision = request.precision if options.precision == "auto" else options.precision
    cost = engine.outlook(
        replace(request, skip_unreadable=options.skip_unreadable), device=options.device, precision=precision,
        batch_size=batch_size, workers=options.workers,
    )  # fmt: skip
    print("\n".join([*notes, screen(cost)]))
    return 0


def report(options: argparse.Namespace) -> int:
    """``robustcal report``."""
    from ..records.store import Run
    from ..report.compare import RENAMED
    from ..report.report import check_request
    from ..report.verb import report as make

    wanted, bins = split_list(options.metrics), positive(options.bins, "--bins")
    formats = split_list(options.format or ([] if options.images else ["text"]))
    out = Path(options.out) if options.out else Path(options.runs[0]) / "report"
    if options.compare in RENAMED:
        print(f"robustcal: --compare {options.compare} is called {RENAMED[options.compare]} now", file=sys.stderr)
    shape = {"layout": options.layout, "compare": options.compare, "versus": options.versus, "caption": options.caption}
    if options.explain is not None or options.images is not None:
        check_request(formats, wanted=wanted, out=out, bins=bins, **shape)
        runs = [Run.open(path) for path in options.runs]
        if options.explain is not None:
            from ..report.explain import explain

            print(explain(runs, options.explain, wanted, bins))
            return 0
        draw_images(runs, options.images, positive(options.top, "--top") or 1, out)
    if formats:
        shape |= {"rename": options.rename, "title": options.title}
        made = make(*options.runs, formats=formats, out=out, metrics=wanted, bins=bins, **shape)
        print("\n".join(filter(None, [made.text, *map(str, made.paths)])))
    return 0


def completion(options: argparse.Namespace) -> int:
    """``robustcal completion``."""
    from .completion import script
    from .parser import parser

    commands: Any = next(action.choices for action in parser()._actions if action.dest == "command")
    print(script(commands, options.shell), end="")
    return 0


def cite(options: argparse.Namespace) -> int:
    """``robustcal cite``."""
    from ..records.store import Run
    from ..report.cite import bibtex

    print(bibtex([Run.open(path) for path in options.runs]), end="")
    return 0


def draw_images(runs: list[Any], name: str, count: int, out: Path) -> None:
    """``robustcal report --images``: attack a cell's worst samples again and draw them."""
    from ..report.explain import the_source
    from ..report.images import worst_rows, write_images
    from ..report.merge import merge
    from ..sweep.replay import replay

    source = the_source(merge(runs)[0], name)
    if not source.cell.id.startswith(name):
        which = f"name one of its members, such as {source.cell.id}"
        raise UserError(f"cell '{name}' is a worst case over attacks and has no images of its own; {which}")
    rows = worst_rows(source, count)
    found = replay(source.cell, [row.id for row in rows])
    for path in write_images(source, rows, found.clean, found.attacked, out):
        print(path)
    unlike = [row.id for row, now in zip(rows, found.predictions) if row.prediction != source.cell.classnames[now]]
    said = "all predictions are those of the record"
    if unlike:
        why = "the attack depends on its batch, or hardware or versions differ"
        said = f"{len(unlike)} of {len(rows)} predictions are not those of the record, such as {unlike[0]}: {why}"
    stream = sys.stderr if unlike else sys.stdout
    print(f"{len(rows)} images attacked again; {said}; the page shows them when it is made again: --format html", file=stream)


def verify(options: argparse.Namespace) -> int:
    """``robustcal verify``. Exit status 0 the run holds, 1 refuted, 2 could not be checked."""
    if len(options.by) > 200 or not options.by.isprintable():
        raise UserError("--by is a name of at most 200 characters in one line")
    positive(options.samples, "--samples")
    seed = None if options.seed is None else seed_of(options.seed)
    from ..api import versions
    from ..audit.verb import verify as check
    from ..audit.words import text_of
    from ..records.signoff import write_signoff
    from ..records.store import Run

    signoff = check(
        Run.open(options.run, mends=False), samples=int(options.samples), seed=seed, stronger=options.stronger,
        cells=options.cells, table=Path(options.table) if options.table else None, by=options.by, device=options.device,
        versions=versions(), tell=lambda line: print(f"robustcal: {line}", file=sys.stderr),
    )  # fmt: skip
    print(text_of(signoff))
    if options.out:
        write_signoff(Path(options.out), signoff)
        print(f"signed off: {options.out}   {signoff.badge}")
    return STATUS[signoff.verdict]


def ls(options: argparse.Namespace) -> int:
    """``robustcal ls``."""
    from . import listing

    rows = listing.rows_of(options.family)
    print(json.dumps(rows, indent=1) if options.json else listing.tables(rows, options.verbose))
    return 0


def check(options: argparse.Namespace) -> int:
    """``robustcal check``."""
    from ..check.inspect import check as inspect

    rows = inspect(options.what)
    lines = [f"{'ok     ' if row['ok'] else 'missing'}  {row['name']:<28}  {row['text']}" for row in rows]
    print(json.dumps(rows, indent=1) if options.json else "\n".join(lines))
    return 0 if all(row["ok"] for row in rows if row.get("required")) else 2


def train(options: argparse.Namespace) -> int:
    """``robustcal train``."""
    from ..train.train import train as run_training
    from . import training

    keys = ("model", "dataset", "objective", "epochs", "steps", "out", "seed", "device", "precision", "track")
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    given |= training.other_settings(options.set)
    progress = training.print_json if options.log == "json" else training.TrainingProgress()
    path = run_training(options.recipe, **given, progress=progress)
    use = f"   use it as a model: robustcal bench --models {name}:{path}" if (name := model_name(path)) else ""
    print(f"trained: {path}{use}")
    return 0


def model_name(run: Path) -> str | None:
    """What a training run is called as a model: its method where a model has that name; None for what is no model."""
    if not (run / "card.json").is_file():
        return None
    method = json.loads((run / "card.json").read_text()).get("method", "")
    return method if method in registry.models.names() else "checkpoint"
