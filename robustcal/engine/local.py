"""The default engine: one worker per device, or several single-thread workers on a CPU, sharing the run directory."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from typing import Any, Iterator, Mapping, Sequence

import torch

from ..registry import load_plugin_file
from ..store import Run
from ..types import UserError
from .plan import Plan, make_plan
from .worker import Worker

#: A worker that dies (out of memory, a crash in a library) is started again this often.
RESTARTS = 2


def missing_shards(plan: Plan, run: Run) -> int:
    """How many shards are still to be computed."""
    return sum(not run.has(cell["id"], shard) for cell in plan.cells for shard in range(cell["shards"]))


def workers_for(device: str, pending: int, asked: int | None = None) -> list[str]:
    """The device of each worker: every GPU when `device` is cuda, else as many CPU workers as cores and shards allow."""
    if asked:
        return [device] * max(1, min(asked, pending))
    if device == "cuda":
        return [f"cuda:{index}" for index in range(max(1, min(torch.cuda.device_count(), pending)))]
    if device == "cpu":
        return ["cpu"] * max(1, min(_cores(), pending))
    return [device]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(
    plan: Plan, run: Run, request: Mapping[str, Any], *, device: str, batch_size: int | None = None, workers: int | None = None
) -> Iterator[Mapping[str, Any]]:
    """Compute every missing shard of the plan; yields events as shards are finished.

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
    threads = max(1, _cores() // len(devices)) if devices[0] == "cpu" else torch.get_num_threads()

    def start(number: int):
        first = number * len(plan.cells) // len(devices)
        task = (str(run.path), dict(request), devices[number], batch_size, first, threads, events)
        process = context.Process(target=_worker_main, args=task, daemon=True)
        process.start()
        return process

    processes, restarts = {number: start(number) for number in range(len(devices))}, RESTARTS
    try:
        while processes:
            try:
                event = events.get(timeout=0.2)
                if event["event"] == "error":
                    raise UserError(event["message"])
                yield event
                continue
            except queue.Empty:
                pass
            for number, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[number]
                if process.exitcode != 0 and restarts > 0:
                    restarts -= 1
                    processes[number] = start(number)
                    yield {"event": "restart", "exitcode": process.exitcode}
        while not events.empty():
            yield events.get()
        if missing_shards(plan, run):
            raise UserError("workers died before the work was done; finished shards are kept, run the same command again")
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join(5)


def _worker_main(path: str, request: dict, device: str, batch_size: int | None, first: int, threads: int, events: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    try:
        for file in request.pop("plugins", ()):
            load_plugin_file(file)
        plan = make_plan(**request)
        worker = Worker(plan, Run.open(path), device, batch_size, first, parent.is_alive)
        for event in worker.work():
            events.put(event)
    except UserError as error:
        events.put({"event": "error", "message": str(error)})
    except OSError as error:
        events.put({"event": "error", "message": f"cannot write records: {error}; finished shards are kept"})
