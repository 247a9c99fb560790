"""Devices and threads: where attacks run, how many workers a machine has room for, and what each computes with."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..types import UserError


class Hardware(NamedTuple):
    """Where an attack runs: a torch device, the precision of its search, and the hardware's name."""

    device: str
    precision: str
    name: str


def pick_device(device: str) -> str:
    """``auto`` -> the first GPU, else the CPU.

    Raises:
        UserError: if a device is asked for that this machine lacks.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{device}' cannot be used here ({reason}); try --device cpu or auto") from None
    return device


def pick(device: str, precision: str) -> Hardware:
    """`pick_device` with its name and the attack's precision: ``auto`` is bf16 on GPUs that have it, fp32 elsewhere."""
    device = pick_device(device)
    on_gpu = device.startswith("cuda")
    if precision == "auto":
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
    return Hardware(device, precision, torch.cuda.get_device_name(device) if on_gpu else f"{device} ({platform.machine()})")


def workers_for(device: str, pending: int, asked: int | None = None) -> list[str]:
    """The device of each worker: every GPU in turn when `device` is cuda, else as many CPU workers as cores allow.

    Args:
        pending: shards to compute; there are no more workers than that.
        asked: how many workers the user wants, in place of one per GPU or core.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    usual = gpus or (cores() if device == "cpu" else 1)
    count = max(1, min(asked or usual, pending))
    return [f"cuda:{number % gpus}" if gpus else device for number in range(count)]


def threads_for(device: str, workers: int) -> int:
    """How many threads each of so many workers computes with: the cores divided among them, on a CPU."""
    return max(1, cores() // workers) if device == "cpu" else torch.get_num_threads()


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> bool:
    """Let this process keep what it frees: a pass's activations, tens of MB each, are not asked of the system every time.

    By default glibc gives large blocks back at once and has the kernel clear new ones in the next pass, a twentieth of
    the time of a ViT-B/32 on a CPU. It holds for the whole process and to its end, a notebook's too: memory that was freed
    serves what this process does next, no other one. False where the C library is another one; nothing is changed there.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))  # -1: never


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
