"""The same sweep on a Ray cluster: one actor per device keeps its models loaded and computes shard after shard.

The driver alone touches the run directory, so nodes need not share it. They do need what a shard is made from: this
version of robustcal, the data, the weights, and plugin files, each under the driver's path. A node whose data or
weights differ plans other cells, and is refused.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterator, Mapping

from ..store import Run, claim_name
from ..types import UserError
from .local import missing_shards, one_line, plan_again
from .plan import Plan
from .reading import Unreadable
from .worker import POLL, Worker, pick as pick_here, shard_event

try:
    import ray
except ImportError:
    raise UserError("the engine 'ray' needs the package ray: pip install 'robustcal[ray]'") from None

__all__ = ["execute", "missing_shards", "pick"]

#: How many workers may be lost in a row, without a shard in between, before the cluster is given up.
RETRIES = 3
#: What Ray raises for a worker whose process or node is gone.
LOST = (
    ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError,
    ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
)  # fmt: skip


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
    make = ray.remote(**needs)(Remote)
    pool = Pool(plan, run, lambda: make.remote(dict(request), device, batch_size))
    try:
        yield from pool.work(min(workers or _fit(needs), missing_shards(plan, run)))
    finally:
        pool.close()


class Remote:
    """A `Worker` in an actor: it plans once, and keeps model and text head between shards."""

    def __init__(self, request: Mapping[str, Any], device: str, batch_size: int | None):
        self.worker = _guarded(lambda: Worker(plan_again(request), None, device, batch_size))

    def ready(self) -> tuple[str, Any]:
        """("done", None) once the node has planned, or ("error", text)."""
        return _guarded(lambda: _unwrap(self.worker) and None)

    def compute(self, cell: str, shard: int) -> tuple[str, Any]:
        """("done", (records, skipped, seconds)) of a shard, or ("unreadable" | "error", text)."""
        return _guarded(self._compute, cell, shard)

    def _compute(self, cell: str, shard: int) -> Any:
        worker = _unwrap(self.worker)
        found = next((c for c in worker.plan.cells if c["id"] == cell), None)
        if found is None:
            raise UserError("a node of the Ray cluster has other data, weights or another version than the driver")
        return *worker.compute(found, shard), worker.spent


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


@dataclass
class Task:
    """One shard in work: where, and the claim on it."""

    actor: Any
    cell: str
    shard: int
    claim: ExitStack
    sign_of_life: Callable[[], None]


class Pool:
    """Actors, what each is computing, and the shards that wait. An actor gets one shard at a time, once it is ready."""

    def __init__(self, plan: Plan, run: Run, make: Callable[[], Any]):
        self.run, self.make = run, make
        self.cells = {cell["id"]: cell for cell in plan.cells}
        self.waiting = {name: deque(run.missing(cell)) for name, cell in self.cells.items()}
        self.starting: dict[Any, Any] = {}  # reference -> actor
        self.working: dict[Any, Task] = {}  # reference -> task
        self.idle: deque[Any] = deque()
        self.last_cell: dict[Any, str] = {}
        self.losses = 0  # in a row

    def work(self, size: int) -> Iterator[Mapping[str, Any]]:
        """Compute what is missing with `size` actors; shards that other drivers hold are waited for."""
        for _ in range(size):
            self._start()
        while True:
            while self.idle and (task := self._next(self.idle[0])):
                self.idle.popleft()
                self.working[task.actor.compute.remote(task.cell, task.shard)] = task
            if not self.working and not any(self.waiting.values()):
                self.waiting = {name: deque(self.run.missing(self.cells[name])) for name in self.waiting}
                if not any(self.waiting.values()):
                    return
            pending = [*self.working, *self.starting]
            done = ray.wait(pending, timeout=POLL)[0] if pending else time.sleep(POLL) or []
            for task in self.working.values():
                task.sign_of_life()  # Ray watches the actors, and says so when one is lost
            for reference in done:
                yield from self._received(reference)

    def close(self) -> None:
        """Give up what is in work and let the actors go."""
        for task in self.working.values():
            task.claim.close()
        for actor in [*self.idle, *self.starting.values(), *(task.actor for task in self.working.values())]:
            ray.kill(actor)

    def _start(self) -> None:
        actor = self.make()
        self.starting[actor.ready.remote()] = actor

    def _next(self, actor: Any) -> Task | None:
        """Claim a shard for the actor: of the cell it knows, else of one that nobody is busy with, else of any."""
        for name in self._preferred(actor):
            while self.waiting[name]:
                shard = self.waiting[name].popleft()
                if self.run.claim(name, shard):
                    claim = ExitStack()
                    sign_of_life = claim.enter_context(self.run.claims.renewing(claim_name(name, shard)))
                    self.last_cell[actor] = name
                    return Task(actor, name, shard, claim, sign_of_life)
        return None

    def _preferred(self, actor: Any) -> Iterator[str]:
        known = self.last_cell.get(actor)
        if self.waiting.get(known):
            yield known
        busy = {task.cell for task in self.working.values()}
        todo = [name for name, shards in self.waiting.items() if shards]
        yield from sorted(todo, key=busy.__contains__)

    def _received(self, reference: Any) -> Iterator[Mapping[str, Any]]:
        """Take in what an actor says: that it is ready, or what became of its shard."""
        task = self.working.pop(reference, None)
        actor = task.actor if task else self.starting.pop(reference)
        with task.claim if task else nullcontext():
            try:
                kind, value = ray.get(reference)
            except LOST as error:
                yield self._lost(task, error)
                return
            self.losses = 0
            self.idle.append(actor)
            if kind == "error":
                raise UserError(value)
            if task and kind == "unreadable":
                yield self._unreadable(self.cells[task.cell], value)
            elif task:
                records, skipped, seconds = value
                self.run.write_shard(task.cell, task.shard, records, skipped)
                yield shard_event(self.cells[task.cell], task.shard, records, skipped, seconds)

    def _lost(self, task: Task | None, error: Exception) -> Mapping[str, Any]:
        self.losses += 1
        if self.losses > RETRIES:
            raise UserError(f"{self.losses} Ray workers were lost in a row ({type(error).__name__}); finished shards are kept")
        if task:
            self.waiting[task.cell].appendleft(task.shard)
        self._start()
        return {"event": "restart", "exitcode": type(error).__name__}

    def _unreadable(self, cell: Mapping[str, Any], text: str) -> Mapping[str, Any]:
        self.waiting = {name: todo for name, todo in self.waiting.items() if self.cells[name]["dataset"] != cell["dataset"]}
        return {"event": "unreadable", "dataset": cell["dataset"], "cell": cell["id"], "message": text}
