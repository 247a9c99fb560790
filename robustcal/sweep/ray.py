"""The same sweep on a Ray cluster: one actor per device keeps its models loaded and computes shard after shard.

The driver alone touches the run directory, so nodes need not share it. They do need what a shard is made from: this
version of robustcal, the data, the weights, and plugin files, each under the driver's path. A node whose data or
weights differ plans other cells, and is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..records.store import Run
from ..types import UserError
from .engine import missing_shards
from .estimate import Outlook
from .estimate import outlook as outlook_here
from .events import CellFailed, Event
from .hardware import Hardware
from .hardware import pick as pick_here
from .local import plan_again
from .plan import Plan, Request
from .run import reason_of
from .worker import Computed, Worker

try:
    import ray

    from .raypool import Pool
except ImportError:
    raise UserError("the engine 'ray' needs the package ray: pip install 'robustcal[ray]'") from None

__all__ = ["execute", "outlook", "pick", "warm"]

Outcome = tuple[str, Any]


def connect() -> None:
    """Join the cluster that ``RAY_ADDRESS`` or this machine knows, else start Ray on this machine alone.

    Raises:
        UserError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return
    try:  # its loggers tell of a lost node whenever they hear of it: `Pool` says so once
        ray.init(log_to_driver=False, logging_level="CRITICAL")
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        where = os.environ.get("RAY_ADDRESS") or "that was last started on this machine"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"the Ray cluster {where} does not answer ({reason}); give RAY_ADDRESS=host:port, or RAY_ADDRESS=local to start one"
        ) from None


def pick(device: str, precision: str) -> Hardware:
    """Device, precision and hardware's name as a worker of the cluster sees them; ``auto`` is cuda if any node has one."""
    connect()
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    needs = _needs(device)
    if needs["num_gpus"] > ray.cluster_resources().get("GPU", 0):
        raise UserError(f"device '{device}' cannot be used: no node of the Ray cluster has a GPU; try --device cpu")
    found: Hardware = _unwrap(ray.get(ray.remote(**needs)(_guarded).remote(pick_here, device, precision)))
    return found


def warm(device: str, workers: int | None) -> None:
    """Nothing: the cluster's own workers are warm."""


def _needs(device: str) -> dict[str, Any]:
    """What one worker asks Ray for."""
    return {"num_cpus": 1, "num_gpus": 1 if device.startswith("cuda") else 0}


def outlook(
    request: Request, *, device: str, precision: str, batch_size: int | None = None, workers: int | None = None
) -> Outlook:
    """`estimate.outlook` as a worker of the cluster sees it: its data, its device; by default as many as fit there."""
    device, precision, name = pick(device, precision)
    needs = _needs(device)
    how = {"device": device, "precision": precision, "batch_size": batch_size, "workers": workers or _fit(needs), "threads": 1}
    look = partial(outlook_here, request, **how)  # type: ignore[arg-type]
    found: Outlook = _unwrap(ray.get(ray.remote(**needs)(_guarded).remote(look)))
    return replace(found, hardware=Hardware(device, precision, f"Ray, {name}"))


def _fit(needs: dict[str, Any]) -> int:
    """How many workers the cluster has room for."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) if needs["num_gpus"] else resources.get("CPU", 1)))


def execute(
    plan: Plan, run: Run, request: Request, *, device: str, batch_size: int | None = None, workers: int | None = None,
    live: Callable[[Event], None] = lambda event: None,
) -> Iterator[Event]:  # fmt: skip
    """See `engine.Engine.execute`; on the cluster, whose workers do not tell how far they are within a shard.

    Raises:
        UserError: workers that cannot plan, or are lost again and again.
    """
    connect()
    needs = _needs(device)
    make = ray.remote(**needs, max_concurrency=2)(Remote)  # one thread computes, the other says that it does
    pool = Pool(plan, run, lambda: make.remote(request, device, batch_size))
    try:
        yield from pool.work(min(workers or _fit(needs), missing_shards(plan, run)))
    finally:
        pool.close()


class Remote:
    """A `Worker` in an actor: it plans once, and keeps model and text head between shards."""

    passes, counted = 0, True

    def __init__(self, request: Request, device: str, batch_size: int | None):
        self.worker = _guarded(lambda: Worker(plan_again(request), device, batch_size))

    def ready(self) -> Outcome:
        """("done", None) once the node has planned, or ("error", text)."""
        return _guarded(lambda: _unwrap(self.worker) and None)

    def compute(self, cell: str, shard: int) -> Outcome:
        """("done", `Computed` or `CellFailed`) of a shard, or ("error", text)."""
        return _guarded(self._compute, cell, shard)

    def life(self) -> float:
        """A number that changes as long as the shard in work gets on: passes through its model so far."""
        return self.passes if self.counted else time.monotonic()

    def _compute(self, name: str, shard: int) -> Computed | CellFailed:
        worker: Worker = _unwrap(self.worker)
        cell = next((c for c in worker.plan.cells if c.id == name), None)
        if cell is None:
            raise UserError("a node of the Ray cluster has other data, weights or another version than the driver")
        self.counted = True
        try:
            self.counted = isinstance(worker.classifier(cell.model, cell), torch.nn.Module)  # no other tells of its passes
        except Exception as error:
            return CellFailed(cell.id, cell.title, reason_of(error))
        return worker.attempt(cell, shard, self._passed)

    def _passed(self) -> None:
        self.passes += 1


def _guarded(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """The result of a call, or its error as one line: exceptions would cross the cluster with their traceback."""
    try:
        return "done", function(*arguments)
    except Exception as error:
        return "error", reason_of(error)


def _unwrap(outcome: Outcome) -> Any:
    kind, value = outcome
    if kind != "done":
        raise UserError(value)
    return value
