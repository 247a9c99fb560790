"""The default engine: one worker per device, or several single-thread workers on a CPU, sharing the run directory."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch

from ..records.store import Run
from ..registry import load_plugin_file
from ..types import UserError, reason_of
from .engine import missing_shards
from .estimate import outlook
from .events import Event, Restarted
from .hardware import pick, threads_for, workers_for
from .pixels import Pixels, shared_folder
from .plan import Plan, Request, make_plan
from .shift import work
from .worker import Worker

__all__ = ["execute", "outlook", "pick", "warm"]

#: A worker that dies (out of memory, a crash in a library) is started again this often.
RESTARTS = 2
#: What every worker imports: once for all of them, in a process that they are forked from (see `warm`).
IMPORTS = ["robustcal.sweep.local", "robustcal.models.blueprint", "robustcal.models.bundled", "open_clip"]
#: How long the other workers may take to notice that nothing is missing, once one of them has.
HANG_SECONDS = 10.0


def execute(
    plan: Plan, run: Run, request: Request, *, device: str, batch_size: int | None = None, workers: int | None = None,
    live: Callable[[Event], None] = lambda event: None,
) -> Iterator[Event]:  # fmt: skip
    """See `engine.Engine.execute`: in this process if one worker is enough, else in one process for each."""
    pending = missing_shards(plan, run)
    if not pending:
        return
    devices = workers_for(device, pending, workers)
    if len(devices) == 1:
        yield from work(Worker(plan, devices[0], batch_size, live=live), run)
    else:
        with shared_folder() as folder:
            yield from _execute_in_processes(plan, run, request, devices, batch_size, folder)


def warm(device: str, workers: int | None) -> None:
    """Begin to import what workers need, in another process, if there will be several: it takes seconds."""
    if len(workers_for(device, sys.maxsize, workers)) > 1:
        _context()
        forkserver.ensure_running()


def _context() -> Any:
    """How worker processes are started: forked from a clean process, which has started no thread and holds no GPU."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)  # and not the caller's script
    return context


def _execute_in_processes(
    plan: Plan, run: Run, request: Request, devices: Sequence[str], batch_size: int | None, pixels: Path
) -> Iterator[Event]:
    context = _context()
    events = context.Queue()
    threads = threads_for(devices[0], len(devices))

    def start(number: int) -> multiprocessing.process.BaseProcess:
        how = {"device": devices[number], "batch_size": batch_size, "number": number}
        how["first"] = number * len(plan.cells) // len(devices)
        shared = str(run.path), run.claims.seconds, request, threads, pixels, dict(os.environ), events
        process: multiprocessing.process.BaseProcess = context.Process(target=_worker_main, args=shared, kwargs=how, daemon=True)
        with _main_hidden():
            process.start()
        return process

    processes, restarts = {number: start(number) for number in range(len(devices))}, RESTARTS
    patience = float("inf")
    try:
        while processes and time.monotonic() < patience:
            yield from _received(events)
            for number, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[number]
                if process.exitcode == 0:  # a worker ends when nothing is missing: one that still works now hangs
                    patience = min(patience, time.monotonic() + HANG_SECONDS)
                elif restarts > 0:
                    restarts -= 1
                    processes[number] = start(number)
                    yield Restarted(f"status {process.exitcode}")
        yield from _received(events)
        if missing_shards(plan, run):
            raise UserError("workers died before the work was done; finished shards are kept, run the same command again")
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join(5)


def _received(events: Any) -> Iterator[Event]:
    """The events that came in, after waiting a moment for the first."""
    wait = 0.2
    while True:
        try:
            event = events.get(timeout=wait)
        except queue.Empty:
            return
        if isinstance(event, str):
            raise UserError(event)
        yield event
        wait = 0.01


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a new process from importing the caller's script again, which would run it again without a main guard."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _worker_main(
    path: str, claim_seconds: float, request: Request, threads: int, pixels: Path, environment: dict[str, str], events: Any,
    **how: Any,
) -> None:  # fmt: skip
    """What a worker process does. `environment`: the driver's now; the process it was forked from has an older one."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    try:
        plan = plan_again(request)
        run = Run.open(path, claim_seconds)
        alive = parent.is_alive if parent else lambda: True
        for event in work(Worker(plan, **how, alive=alive, live=events.put, pixels=Pixels(pixels)), run):
            events.put(event)
    except Exception as error:
        reason = reason_of(error)
        events.put(reason if isinstance(error, UserError) else f"a worker failed: {reason}; finished shards are kept")


def plan_again(request: Request) -> Plan:
    """The plan of a request, in another process; what is not here is left out as it was in the first."""
    for file in request.plugins:
        load_plugin_file(file)
    return make_plan(request, strict=False)
