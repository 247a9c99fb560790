"""A sweep from its request to finished records: what cannot be done is named and left out, everything else is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from .plan import Plan, Request, make_plan, model_identity
from .preflight import preflight, try_attacks
from .reading import explain

#: What a run's remarks call the reason why a cell was not tried.
FAILED = "failed"
LOG = logging.getLogger("robustcal")
LOG.addHandler(logging.NullHandler())  # who wants to see it says so; the command line has its own display


@dataclass(frozen=True)
class Failure:
    """Something that was asked for and could not be done: what, why, and how many cells it cost."""

    what: str
    reason: str
    cells: int = 0

    def __str__(self) -> str:
        return self.reason if self.what in self.reason else f"{self.what}: {self.reason}"


@dataclass(frozen=True)
class Prepared:
    """A plan, and the cells of it that are known not to work: {cell id: why}."""

    plan: Plan
    refused: Mapping[str, str]

    def cells(self) -> list[Cell]:
        return [cell for cell in self.plan.cells if cell.id not in self.refused]


def prepare(request: Request, out: Path, strict: bool = False) -> Prepared:
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
    return Prepared(plan, refused)


def _finished(plan: Plan, refused: Mapping[str, str], out: Path) -> bool:
    if not (out / "run.json").is_file():
        return False
    run = Run.open(out)
    return not any(run.missing(cell) for cell in plan.cells if cell.id not in refused)


def take_up(prepared: Prepared, run: Run) -> list[str]:
    """Put the cells into a run and look at what it has of them. Returns a line for everything noticed."""
    with run.alone():
        return _take_up(prepared, run)


def _take_up(prepared: Prepared, run: Run) -> list[str]:
    plan = prepared.plan
    notes = _other_weights(run, plan.cells)
    said = {name: tuple(getattr(source.dataset, "notes", ())) for name, source in plan.sources.items()}
    notes += [f"dataset '{name}': {line}" for name, lines in said.items() for line in lines]
    for cell in plan.cells:
        run.add_cell(cell)
        run.forget_failure(cell.id)
        run.remark(cell.id, "data", said[cell.dataset])
        run.remark(cell.id, FAILED, [prepared.refused[cell.id]] if cell.id in prepared.refused else [])
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
    prepared: Prepared, run: Run, request: Request, engine: Engine, tell: Callable[[Event], None], notes: Sequence[str] = (),
    strict: bool = False, **how: Any,
) -> list[Failure]:  # fmt: skip
    """Compute every missing shard and say what could not be done.

    Args:
        how: device, batch_size and workers of `Engine.execute`.

    Raises:
        UserError: what ends the sweep; with `strict`, the first cell that fails; else that there is no record of any.
    """
    plan = replace(prepared.plan, cells=tuple(prepared.cells()))
    request = replace(request, without=tuple(prepared.refused))  # of no concern to other drivers, where they may work
    tell(outset(prepared, run, notes, how.get("device", "cpu"), how.get("workers")))
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
    unseen = {cell.id: reason for cell in plan.cells if (reason := run.failures().get(cell.id)) and run.missing(cell)}
    for cell in plan.cells:  # that another driver met
        if cell.id in unseen and not any(event.cell == cell.id or event.dataset == cell.dataset for event in failed.values()):
            failed[cell.id] = CellFailed(cell.id, cell.title, unseen[cell.id])
    found = [_explained(event, plan) for event in failed.values()]
    if found and not any(run.present(cell.id) for cell in plan.cells):
        raise UserError("; ".join(dict.fromkeys(event.reason for event in found)))
    return [*(Failure(f"{a.axis} '{a.spec}'", a.reason) for a in plan.absent), *_grouped(prepared), *_unlike(found)]


def outset(prepared: Prepared, run: Run, notes: Sequence[str], device: str, workers: int | None) -> Planned:
    """What there is to do, and what every cell's passes are, so that time can be told."""
    plan, pending = prepared.plan, missing_shards(prepared.plan, run)
    todo = {cell.id: missing for cell in prepared.cells() if (missing := run.missing(cell))}
    costs = {cell.id: _cost(cell) for cell in plan.cells if cell.id in todo}
    each = {name: forwards + 2 * gradients for name, (forwards, gradients) in costs.items()}
    cells = [cell for cell in plan.cells if cell.id in todo]
    return Planned(
        len(plan.cells), plan.samples, plan.shards, pending, tuple(notes), len(workers_for(device, pending, workers)),
        passes={cell.id: each[cell.id] * sum(cell.rows(shard) for shard in todo[cell.id]) for cell in cells},
        passes_each=each,
        forwards={name: forwards for name, (forwards, _) in costs.items()},
        kinds={cell.id: f"{cell.model} {cell.resolution} {cell.attack if cell.identity.attack_file else ''}" for cell in cells},
        titles={cell.id: " ".join(text.partition(":")[0] for text in (cell.model, cell.dataset, cell.attack)) for cell in cells},
    )  # fmt: skip


def _cost(cell: Cell) -> tuple[float, float]:
    """`passes_of_cell`; one pass for an attack of the user's own, which is not run outside a worker, or that wants more
    than a linear model to be counted on."""
    if cell.identity.attack_file:
        return 1.0, 0.0
    try:
        return passes_of_cell(cell)
    except Exception:
        return 1.0, 0.0


def _explained(event: CellFailed, plan: Plan) -> CellFailed:
    """Where images do not decode: how many, and which."""
    if not event.dataset or event.hangs:
        return event
    source = plan.sources[event.dataset]
    count = max(cell.n for cell in plan.cells if cell.dataset == event.dataset)
    indices = [int(place) for place in source.order[:count]]
    return replace(event, title=f"dataset '{event.dataset}'", reason=explain(event.dataset, source.dataset, indices))


def _grouped(prepared: Prepared) -> list[Failure]:
    """What was refused before anything was computed, once for each reason."""
    titles = {cell.id: cell.title for cell in prepared.plan.cells}
    by_reason: dict[str, list[str]] = {}
    for name, reason in prepared.refused.items():
        by_reason.setdefault(reason, []).append(titles[name])
    return [Failure(names[0], reason, len(names)) for reason, names in by_reason.items()]


def _unlike(events: Iterable[CellFailed]) -> list[Failure]:
    """One failure for each reason."""
    first = {event.reason: event for event in reversed(list(events))}
    return [Failure(event.title, event.reason, 1) for event in reversed(list(first.values()))]
