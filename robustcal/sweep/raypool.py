"""The driver's side of a sweep on Ray: actors, what each is computing, and the shards that wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import ray

from ..records.claims import SECONDS
from ..records.store import Run, claim_name
from ..types import UserError
from .events import CellFailed, Event, Restarted
from .plan import Plan
from .shift import POLL, give_up
from .worker import Computed

#: How many workers may be lost in a row, without a shard in between, before the cluster is given up.
RETRIES = 3
#: A worker without a pass through its model for so long hangs: when a claim of the local engine would have run out.
SILENCE = 2 * SECONDS
#: What Ray raises for a worker whose process or node is gone.
LOST = (
    ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError,
    ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
)  # fmt: skip


@dataclass
class Task:
    """One shard in work: where, the claim on it, and when its actor was last heard of."""

    actor: Any
    cell: str
    shard: int
    claim: ExitStack
    sign_of_life: Callable[[], None]
    question: Any = None  # reference of an answer awaited
    life: float | None = None  # the last answer
    silent: float = 0.0  # seconds since the answer changed
    looked: float = field(default_factory=time.monotonic)
    killed: bool = False

    def watch(self) -> None:
        """Ask the actor about once a second whether it gets on: renew the claim if so, kill it if it hangs."""
        now = time.monotonic()
        if now - self.looked < POLL:
            return
        self.silent += min(now - self.looked, 2 * POLL)  # a driver that was stopped itself has heard nobody
        self.looked = now
        try:
            if self.question and ray.wait([self.question], timeout=0)[0]:
                life, self.question = ray.get(self.question), None
                if life != self.life:
                    self.life, self.silent = life, 0.0
                    self.sign_of_life()
        except LOST:  # the reference of its shard will say so too
            return
        self.question = self.question or self.actor.life.remote()
        if self.silent > SILENCE and not self.killed:
            self.killed = True
            ray.kill(self.actor)


class Pool:
    """Actors, what each is computing, and the shards that wait. An actor gets one shard at a time, once it is ready."""

    def __init__(self, plan: Plan, run: Run, make: Callable[[], Any]):
        self.plan, self.run, self.make = plan, run, make
        self.cells = {cell.id: cell for cell in plan.cells}
        self.waiting = self._missing()
        self.starting: dict[Any, Any] = {}  # reference -> actor
        self.working: dict[Any, Task] = {}  # reference -> task
        self.idle: deque[Any] = deque()
        self.last_cell: dict[Any, str] = {}
        self.losses = 0  # in a row

    def work(self, size: int) -> Iterator[Event]:
        """Compute what is missing with `size` actors; shards that other drivers hold are waited for."""
        for _ in range(size):
            self._start()
        while True:
            while self.idle and (task := self._next(self.idle[0])):
                self.idle.popleft()
                self.working[task.actor.compute.remote(task.cell, task.shard)] = task
            if not self.working and not any(self.waiting.values()):
                self.waiting = self._missing()
                if not any(self.waiting.values()):
                    return
            pending = [*self.working, *self.starting]
            if not pending:
                time.sleep(POLL)
            for reference in ray.wait(pending, timeout=POLL)[0] if pending else ():
                yield from self._received(reference)
            for task in self.working.values():
                task.watch()

    def close(self) -> None:
        """Give up what is in work and let the actors go."""
        for task in self.working.values():
            task.claim.close()
        for actor in [*self.idle, *self.starting.values(), *(task.actor for task in self.working.values())]:
            ray.kill(actor)

    def _missing(self) -> dict[str, deque[int]]:
        """The shards to compute by cell, of cells that have not failed."""
        failed = self.run.failures()
        return {name: deque(self.run.missing(cell)) for name, cell in self.cells.items() if name not in failed}

    def _start(self) -> None:
        actor = self.make()
        self.starting[actor.ready.remote()] = actor

    def _next(self, actor: Any) -> Task | None:
        """Claim a shard for the actor: of the cell it knows, else of one that nobody is busy with, else of any."""
        known, busy = self.last_cell.get(actor), {task.cell for task in self.working.values()}
        for name in sorted(self.waiting, key=lambda name: (name != known, name in busy)):
            while self.waiting[name]:
                shard = self.waiting[name].popleft()
                if self.run.claim(self.cells[name], shard):
                    claim = ExitStack()
                    sign_of_life = claim.enter_context(self.run.claims.renewing(claim_name(name, shard)))
                    self.last_cell[actor] = name
                    return Task(actor, name, shard, claim, sign_of_life)
        return None

    def _received(self, reference: Any) -> Iterator[Event]:
        """Take in what an actor says: that it is ready, or what became of its shard."""
        task = self.working.pop(reference, None)
        actor = task.actor if task else self.starting.pop(reference)
        with task.claim if task else nullcontext():
            try:
                value = ray.get(reference)
            except LOST as error:
                yield self._lost(task, error)
                return
            self.losses = 0
            self.idle.append(actor)
            if isinstance(value, UserError):
                raise value
            if isinstance(value, CellFailed):
                yield give_up(self.plan, self.run, value)
                failed = self.run.failures()
                self.waiting = {name: todo for name, todo in self.waiting.items() if name not in failed}
            elif task and isinstance(value, Computed):
                yield value.write(self.run, self.cells[task.cell], task.shard)

    def _lost(self, task: Task | None, error: Exception) -> Event:
        self.losses += 1
        reason = f"hung for {SILENCE:g} s" if task and task.killed else type(error).__name__
        if self.losses > RETRIES:
            raise UserError(f"{self.losses} Ray workers were lost in a row ({reason}); finished shards are kept")
        if task and task.cell in self.waiting:
            self.waiting[task.cell].appendleft(task.shard)
        self._start()
        return Restarted(reason)
