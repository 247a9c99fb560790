"""The default engine: one worker per device, or several single-thread workers on a CPU, sharing the run directory."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..records.store import Run
from ..registry import load_plugin_file
from ..types import UserError
from .plan import Plan, make_plan
from .worker import Worker, pick

__all__ = ["execute", "missing_shards", "pick", "workers_for"]

#: A worker that dies (out of memory, a crash in a library) is started again this often.
RESTARTS = 2
#: How long the other workers may take to notice that nothing is missing, once one of them has.
HANG_SECONDS = 10.0


def missing_shards(plan: Plan, run: Run) -> int:
    """How many shards are still to be computed."""
    return sum(len(run.missing(cell)) for cell in plan.cells)


def workers_for(device: str, pending: int, asked: int | None = None) -> list[str]:
    """The device of each worker: every GPU in turn when `device` is cuda, else as many CPU workers as cores allow.

    Args:
        pending: shards to compute; there are no more workers than that.
        asked: how many workers the user wants, in place of one per GPU or core.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    usual = gpus or (_cores() if device == "cpu" else 1)
    count = max(1, min(asked or usual, pending))
    return [f"cuda:{number % gpus}" if gpus else device for number in range(count)]


def threads_for(device: str, workers: int) -> int:
    """How many threads each of so many workers computes with: the cores divided among them, on a CPU."""
    return max(1, _cores() // workers) if device == "cpu" else torch.get_num_threads()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(
    plan: Plan, run: Run, request: Mapping[str, Any], *, device: str, batch_size: int | None = None, workers: int | None = None
) -> Iterator[Mapping[str, Any]]:
    """Compute every missing shard of the plan; yields events as shards are finished ("shard", "restart", "unreadable").

    Args:
        request: keyword arguments of `make_plan`, plus `plugins`: a worker process plans again from these.

    Raises:
        UserError: what went wrong in a worker, in one line. Everything finished is kept.
    """
    pending = missing_shards(plan, run)
    if not pending:
        return
    devices = workers_for(device, pending, workers)
    if len(devices) == 1:
        yield from Worker(plan, run, devices[0], batch_size).work()
    else:
        yield from _execute_in_processes(plan, run, request, devices, batch_size)


def _execute_in_processes(
    plan: Plan, run: Run, request: Mapping[str, Any], devices: Sequence[str], batch_size: int | None
) -> Iterator[Mapping[str, Any]]:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    threads = threads_for(devices[0], len(devices))

    def start(number: int):
        first = number * len(plan.cells) // len(devices)
        path, seconds = str(run.path), run.claims.seconds
        task = (path, seconds, dict(request), devices[number], batch_size, first, threads, events)
        process = context.Process(target=_worker_main, args=task, daemon=True)
        with _main_hidden():
            process.start()
        return process

    processes, restarts = {number: start(number) for number in range(len(devices))}, RESTARTS
    left: set[str] = set()  # datasets that cannot be finished
    patience = float("inf")
    try:
        while processes and time.monotonic() < patience:
            for event in _received(events):
                left |= {event["dataset"]} if event["event"] == "unreadable" else set()
                yield event
            for number, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[number]
                if process.exitcode == 0:  # a worker ends when nothing is missing: one that still works now hangs
                    patience = min(patience, time.monotonic() + HANG_SECONDS)
                elif restarts > 0:
                    restarts -= 1
                    processes[number] = start(number)
                    yield {"event": "restart", "exitcode": process.exitcode}
        yield from _received(events)
        if any(run.missing(cell) for cell in plan.cells if cell["dataset"] not in left):
            raise UserError("workers died before the work was done; finished shards are kept, run the same command again")
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join(5)


def _received(events: Any) -> Iterator[Mapping[str, Any]]:
    """The events that came in, after waiting a moment for the first."""
    wait = 0.2
    while True:
        try:
            event = events.get(timeout=wait)
        except queue.Empty:
            return
        if event["event"] == "error":
            raise UserError(event["message"])
        yield event
        wait = 0.01


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a new process from importing the caller's script again, which would run it again without a main guard."""
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _worker_main(
    path: str, claim_seconds: float, request: dict, device: str, batch_size: int | None, first: int, threads: int, events: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    try:
        plan = plan_again(request)
        worker = Worker(plan, Run.open(path, claim_seconds), device, batch_size, first, parent.is_alive)
        for event in worker.work():
            events.put(event)
    except UserError as error:
        events.put({"event": "error", "message": str(error)})
    except Exception as error:
        events.put({"event": "error", "message": one_line(error)})


def plan_again(request: Mapping[str, Any], **more: Any) -> Plan:
    """The plan of a request, in another process: `request` is `make_plan`'s keyword arguments and `plugins`."""
    arguments = {**request, **more}
    for file in arguments.pop("plugins", ()):
        load_plugin_file(file)
    return make_plan(**arguments)


def one_line(error: Exception) -> str:
    """An unforeseen error of a worker as one line that says where it happened."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(str(error).split())[:300]
    return f"a worker failed: {type(error).__name__}: {what} ({where.filename}:{where.lineno}); finished shards are kept"
