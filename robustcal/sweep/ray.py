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
from ..types import UserError, reason_of
from .engine import missing_shards
from .estimate import Outlook
from .estimate import outlook as outlook_here
from .events import CellFailed, Event
from .hardware import Hardware
from .hardware import pick as pick_here
from .local import plan_again
from .plan import Plan, Request
from .worker import Computed, Worker, failed

try:
    import ray

    from .raypool import Pool
except ImportError:
    raise UserError("the engine 'ray' needs the package ray: pip install 'robustcal[ray]'") from None

__all__ = ["execute", "outlook", "pick", "warm"]


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
    if _needs(device)["num_gpus"] > ray.cluster_resources().get("GPU", 0):
        raise UserError(f"device '{device}' cannot be used: no node of the Ray cluster has a GPU; try --device cpu")
    found: Hardware = _remotely(device, pick_here, device, precision)
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
    how = {"device": device, "precision": precision, "batch_size": batch_size, "workers": workers or _fit(device), "threads": 1}
    found: Outlook = _remotely(device, partial(outlook_here, request, **how))  # type: ignore[arg-type]
    return replace(found, hardware=Hardware(device, precision, f"Ray, {name}"))


def _fit(device: str) -> int:
    """How many workers the cluster has room for."""
    kind = "GPU" if device.startswith("cuda") else "CPU"
    return max(1, int(ray.cluster_resources().get(kind, 0)))


def execute(
    plan: Plan, run: Run, request: Request, *, device: str, batch_size: int | None = None, workers: int | None = None,
    live: Callable[[Event], None] = lambda event: None,
) -> Iterator[Event]:  # fmt: skip
    """See `engine.Engine.execute`; on the cluster, whose workers do not tell how far they are within a shard.

    Raises:
        UserError: workers that cannot plan, or are lost again and again.
    """
    connect()
    make = ray.remote(**_needs(device), max_concurrency=2)(Remote)  # one thread computes, the other says that it does
    pool = Pool(plan, run, lambda: make.remote(request, device, batch_size))
    try:
        yield from pool.work(min(workers or _fit(device), missing_shards(plan, run)))
    finally:
        pool.close()


class Remote:
    """A `Worker` in an actor: it plans once, and keeps model and text head between shards."""

    passes, counted = 0, True

    def __init__(self, request: Request, device: str, batch_size: int | None):
        self.worker = _guarded(lambda: Worker(plan_again(request), device, batch_size))

    def ready(self) -> UserError | None:
        """None once the node has planned, or why it cannot."""
        return self.worker if isinstance(self.worker, UserError) else None

    def compute(self, name: str, shard: int) -> Computed | CellFailed | UserError:
        """What came out of a shard of a cell, why that cell cannot be computed, or what ends the sweep."""
        cell = next((cell for cell in self.worker.plan.cells if cell.id == name), None)
        if cell is None:
            return UserError("a node of the Ray cluster has other data, weights or another version than the driver")
        self.counted = True
        try:
            self.counted = isinstance(self.worker.classifier(cell.model, cell), torch.nn.Module)  # no other tells of its passes
            computed: Computed = self.worker.compute(cell, shard, self._passed)
        except Exception as error:
            return failed(cell, error)
        return computed

    def life(self) -> float:
        """A number that changes as long as the shard in work gets on: passes through its model so far."""
        return self.passes if self.counted else time.monotonic()

    def _passed(self) -> None:
        self.passes += 1


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call, or its error in one line: exceptions would cross the cluster with their traceback."""
    try:
        return function(*arguments)
    except Exception as error:
        return UserError(reason_of(error))


def _remotely(device: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call on a node that has such a device."""
    found = ray.get(ray.remote(**_needs(device))(_guarded).remote(function, *arguments))
    if isinstance(found, UserError):
        raise found
    return found
