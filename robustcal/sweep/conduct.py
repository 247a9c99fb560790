"""A sweep from its request to finished records: what cannot be done is named and left out, everything else is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import registry
from ..cell import Cell
from ..records.store import Run
from ..types import UserError
from .engine import Engine, missing_shards
from .estimate import passes_of_cell
from .events import CellFailed, Event, Planned
from .hardware import workers_for
from .plan import Failure, Plan, Request, make_plan, model_identity
from .preflight import preflight, try_attacks
from .reading import explain

#: What a run's remarks call the reason why a cell was not tried.
FAILED = "failed"
LOG = logging.getLogger("robustcal")
LOG.addHandler(logging.NullHandler())  # who wants to see it says so; the command line has its own display


def prepare(request: Request, out: Path, strict: bool = False) -> Plan:
    """Plan a request and try what can be tried before a folder is made: that attacks start and that models load.

    Models are loaded only where there is something to compute. One that is fetched by this is identified by its bytes.

    Raises:
        UserError: nothing of the request can be done; or, with `strict`, a part of it cannot.
    """
    plan = make_plan(request, strict=strict)
    refused = try_attacks(plan)
    if not _finished(plan, refused, out):
        broken = preflight(cell.model for cell in plan.cells if cell.id not in refused)
        now = {model: model_identity(registry.models.spec(model)) for model in plan.distinct("model") if model not in broken}
        if any(now.get(cell.model, cell.identity.weights) != cell.identity.weights for cell in plan.cells):
            plan = make_plan(request, strict=strict)
            refused = try_attacks(plan)
        refused = {cell.id: broken[cell.model] for cell in plan.cells if cell.model in broken} | refused
    if refused and (strict or len(refused) == len(plan.cells)):
        raise UserError("; ".join(list(dict.fromkeys(refused.values()))[: 1 if strict else None]))
    return replace(plan, refused=refused)


def _finished(plan: Plan, refused: Mapping[str, str], out: Path) -> bool:
    if not (out / "run.json").is_file():
        return False
    run = Run.open(out)
    return not any(run.missing(cell) for cell in plan.cells if cell.id not in refused)


def take_up(plan: Plan, run: Run) -> list[str]:
    """Put the cells into a run and look at what it has of them. Returns a line for everything noticed."""
    said = {name: tuple(getattr(source.dataset, "notes", ())) for name, source in plan.sources.items()}
    with run.claims.alone():
        notes = _other_weights(run, plan.cells)
        notes += [f"dataset '{name}': {line}" for name, lines in said.items() for line in lines]
        for cell in plan.cells:
            run.add_cell(cell)
            run.forget_failure(cell.id)
            run.remark(cell.id, "data", said[cell.dataset])
            run.remark(cell.id, FAILED, [plan.refused[cell.id]] if cell.id in plan.refused else [])
            notes += run.discard_damaged(cell.id)
        run.drop_claims(plan.cells)
    return notes


def _other_weights(run: Run, cells: Iterable[Cell]) -> list[str]:
    """One line for every model that the run holds with other weights than those that are here now."""
    held: dict[str, set[str]] = {}
    for cell in run.cells():
        held.setdefault(cell.model, set()).add(cell.identity.weights)
    now = {cell.model: cell.identity.weights for cell in cells}
    return [
        f"model '{model}' has other weights than the records of '{run.path.name}': another model, which tables tell apart"
        for model, weights in now.items()
        if model in held and weights not in held[model]
    ]


def compute(
    whole: Plan, run: Run, request: Request, engine: Engine, tell: Callable[[Event], None], notes: Sequence[str] = (),
    strict: bool = False, **how: Any,
) -> list[Failure]:  # fmt: skip
    """Compute every missing shard and say what could not be done.

    Args:
        how: device, batch_size and workers of `Engine.execute`.

    Raises:
        UserError: what ends the sweep; with `strict`, the first cell that fails; else that there is no record of any.
    """
    plan = whole.accepted()
    request = replace(request, without=tuple(whole.refused))  # of no concern to other drivers, where they may work
    tell(outset(whole, run, notes, how.get("device", "cpu"), how.get("workers")))
    failed: dict[str, CellFailed] = {}
    for event in engine.execute(plan, run, request, live=tell, **how):
        if isinstance(event, CellFailed):
            if any(event.cell == known.cell or (event.dataset and event.dataset == known.dataset) for known in failed.values()):
                continue  # several workers met it
            failed[event.cell] = event
            LOG.warning("failed: %s", event)
            if strict:
                raise UserError(_explained(event, plan).reason)
        else:
            LOG.info("%s", event)
        tell(event)
    known = run.failures()
    for cell in plan.cells:  # that another driver met
        told = any(event.cell == cell.id or event.dataset == cell.dataset for event in failed.values())
        if cell.id in known and not told and run.missing(cell):
            failed[cell.id] = CellFailed(cell.id, cell.title, known[cell.id])
    found = [_explained(event, plan) for event in failed.values()]
    if found and not any(run.present(cell.id) for cell in plan.cells):
        raise UserError("; ".join(dict.fromkeys(event.reason for event in found)))
    failures = [*plan.absent, *_grouped(whole)]
    for event in found:
        if not any(event.reason == said.reason for said in failures):
            failures.append(Failure(event.title, event.reason, 1))
    return failures


def outset(plan: Plan, run: Run, notes: Sequence[str], device: str, workers: int | None) -> Planned:
    """What there is to do, and what every cell's passes are, so that time can be told."""
    pending = missing_shards(plan, run)
    lacking = {cell.id: missing for cell in plan.accepted().cells if (missing := run.missing(cell))}
    todo = [cell for cell in plan.cells if cell.id in lacking]
    costs = {cell.id: _cost(cell) for cell in todo}
    each = {name: forwards + 2 * gradients for name, (forwards, gradients) in costs.items()}
    return Planned(
        len(plan.cells), plan.samples, plan.shards, pending, tuple(notes), len(workers_for(device, pending, workers)),
        passes={cell.id: each[cell.id] * sum(map(cell.rows, lacking[cell.id])) for cell in todo},
        passes_each=each,
        forwards={name: forwards for name, (forwards, _) in costs.items()},
        kinds={cell.id: f"{cell.model} {cell.resolution} {cell.attack if cell.identity.attack_file else ''}" for cell in todo},
        titles={cell.id: " ".join(text.partition(":")[0] for text in (cell.model, cell.dataset, cell.attack)) for cell in todo},
    )  # fmt: skip


def _cost(cell: Cell) -> tuple[float, float]:
    """`passes_of_cell`; one pass for an attack of the user's own, which is not run outside a worker, or that wants more
    than a linear model to be counted on."""
    with suppress(Exception):
        if not cell.identity.attack_file:
            return passes_of_cell(cell)
    return 1.0, 0.0


def _explained(event: CellFailed, plan: Plan) -> CellFailed:
    """Where images do not decode: how many, and which."""
    if not event.dataset or event.hangs:
        return event
    source = plan.sources[event.dataset]
    count = max(cell.n for cell in plan.cells if cell.dataset == event.dataset)
    reason = explain(event.dataset, source.dataset, source.order[:count].tolist())
    return replace(event, title=f"dataset '{event.dataset}'", reason=reason)


def _grouped(plan: Plan) -> list[Failure]:
    """What was refused before anything was computed, once for each reason."""
    titles = {cell.id: cell.title for cell in plan.cells}
    by_reason: dict[str, list[str]] = {}
    for name, reason in plan.refused.items():
        by_reason.setdefault(reason, []).append(titles[name])
    return [Failure(names[0], reason, len(names)) for reason, names in by_reason.items()]
