"""The same sweep on a Ray cluster: one actor per device keeps its models loaded and computes shard after shard.

The driver alone touches the run directory, so nodes need not share it. They do need what a shard is made from: this
version of robustcal, the data, the weights, and plugin files, each under the driver's path. A node whose data or
weights differ plans other cells, and is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ..records.store import Run
from ..types import UserError
from .local import missing_shards, one_line, plan_again
from .plan import Plan
from .reading import Unreadable
from .worker import Worker
from .worker import pick as pick_here

try:
    import ray

    from .raypool import Pool
except ImportError:
    raise UserError("the engine 'ray' needs the package ray: pip install 'robustcal[ray]'") from None

__all__ = ["execute", "missing_shards", "pick"]


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


def pick(device: str, precision: str) -> tuple[str, str, str]:
    """Device, precision and hardware's name as a worker of the cluster sees them; ``auto`` is cuda if any node has one."""
    connect()
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    needs = _needs(device)
    if needs["num_gpus"] > ray.cluster_resources().get("GPU", 0):
        raise UserError(f"device '{device}' cannot be used: no node of the Ray cluster has a GPU; try --device cpu")
    return _unwrap(ray.get(ray.remote(**needs)(_guarded).remote(pick_here, device, precision)))


def _needs(device: str) -> dict[str, Any]:
    """What one worker asks Ray for."""
    return {"num_cpus": 1, "num_gpus": 1 if device.startswith("cuda") else 0}


def outlook(
    request: Mapping[str, Any], *, device: str, precision: str, batch_size: int | None = None, workers: int | None = None
) -> dict[str, Any]:
    """`estimate.outlook` as a worker of the cluster sees it: its data, its device; by default as many as fit there."""
    from .estimate import outlook as outlook_here

    device, precision, hardware = pick(device, precision)
    needs = _needs(device)
    how = {"device": device, "precision": precision, "batch_size": batch_size, "workers": workers or _fit(needs), "threads": 1}
    task = ray.remote(**needs)(_guarded).remote(partial(outlook_here, dict(request), **how))
    return _unwrap(ray.get(task)) | {"hardware": f"Ray, {hardware}"}


def _fit(needs: Mapping[str, Any]) -> int:
    """How many workers the cluster has room for."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) if needs["num_gpus"] else resources.get("CPU", 1)))


def execute(
    plan: Plan, run: Run, request: Mapping[str, Any], *, device: str, batch_size: int | None = None, workers: int | None = None
) -> Iterator[Mapping[str, Any]]:
    """Compute every missing shard of the plan on the cluster; yields the events of `local.execute`.

    Raises:
        UserError: what went wrong in a worker, in one line; or workers that are lost again and again.
    """
    connect()
    needs = _needs(device)
    make = ray.remote(**needs, max_concurrency=2)(Remote)  # one thread computes, the other says that it does
    pool = Pool(plan, run, lambda: make.remote(dict(request), device, batch_size))
    try:
        yield from pool.work(min(workers or _fit(needs), missing_shards(plan, run)))
    finally:
        pool.close()


class Remote:
    """A `Worker` in an actor: it plans once, and keeps model and text head between shards."""

    passes, counted = 0, True

    def __init__(self, request: Mapping[str, Any], device: str, batch_size: int | None):
        self.worker = _guarded(lambda: Worker(plan_again(request), None, device, batch_size))

    def ready(self) -> tuple[str, Any]:
        """("done", None) once the node has planned, or ("error", text)."""
        return _guarded(lambda: _unwrap(self.worker) and None)

    def compute(self, cell: str, shard: int) -> tuple[str, Any]:
        """("done", (records, skipped, seconds)) of a shard, or ("unreadable" | "error", text)."""
        return _guarded(self._compute, cell, shard)

    def life(self) -> float:
        """A number that changes as long as the shard in work gets on: passes through its model so far."""
        return self.passes if self.counted else time.monotonic()

    def _compute(self, cell: str, shard: int) -> Any:
        worker = _unwrap(self.worker)
        found = next((c for c in worker.plan.cells if c["id"] == cell), None)
        if found is None:
            raise UserError("a node of the Ray cluster has other data, weights or another version than the driver")
        self.counted = True
        self.counted = isinstance(worker.classifier(found["model"], found), torch.nn.Module)  # no other tells of its passes
        return *worker.compute(found, shard, self._passed), worker.spent

    def _passed(self) -> None:
        self.passes += 1


def _guarded(function: Any, *arguments: Any) -> tuple[str, Any]:
    """The result of a call, or its error as one line: exceptions would cross the cluster with their traceback."""
    try:
        return "done", function(*arguments)
    except Unreadable as error:
        return "unreadable", str(error)
    except UserError as error:
        return "error", str(error)
    except Exception as error:
        return "error", one_line(error)


def _unwrap(outcome: tuple[str, Any]) -> Any:
    kind, value = outcome
    if kind != "done":
        raise UserError(value)
    return value
