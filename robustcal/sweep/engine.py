"""What the engines have in common: who computes the missing shards of a plan, where, and at what cost."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from ..records.store import Run
from ..types import UserError
from .events import Event
from .hardware import Hardware
from .plan import Plan, Request

if TYPE_CHECKING:
    from .estimate import Outlook

ENGINES = ("local", "ray")


class Engine(Protocol):
    """A module of this room that executes plans: `local` or `ray`."""

    def pick(self, device: str, precision: str) -> Hardware:
        """Resolve ``auto`` where the workers will run. Raises `UserError` for a device that is not there."""

    def warm(self, device: str, workers: int | None) -> None:
        """Begin what takes workers long and needs no plan; it goes on in the background."""

    def outlook(self, request: Request, *, device: str, precision: str, batch_size: int | None, workers: int | None) -> Outlook:
        """What a request costs there: see `estimate.outlook`."""

    def execute(
        self, plan: Plan, run: Run, request: Request, *, device: str, batch_size: int | None = None, workers: int | None = None,
        live: Callable[[Event], None] = ...,
    ) -> Iterator[Event]:  # fmt: skip
        """Compute every missing shard of the plan, and yield what happens. A cell that fails does not end the others.

        Args:
            request: what the plan was made from: a worker elsewhere plans again from it.
            live: told in between how far workers are within their shards.

        Raises:
            UserError: what ends the whole sweep, in one line. Everything finished is kept.
        """


def pick_engine(name: str) -> Engine:
    """The engine of that name. Raises `UserError` for an unknown name, or one whose package is not installed."""
    if name not in ENGINES:
        raise UserError(f"unknown engine '{name}'; there are: {', '.join(ENGINES)}")
    return cast(Engine, importlib.import_module(f".{name}", __package__))


def missing_shards(plan: Plan, run: Run) -> int:
    """How many shards are still to be computed, of cells that have not failed."""
    failed = run.failures()
    return sum(len(run.missing(cell)) for cell in plan.cells if cell.id not in failed)
