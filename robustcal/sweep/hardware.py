"""Devices and threads: how many workers a machine has room for, and what each computes with."""

from __future__ import annotations

import os

import torch


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


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
