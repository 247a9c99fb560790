"""Checkpoints of a training run: safetensors plus a JSON card, written atomically, nothing pickled.

A checkpoint is a folder ``checkpoints/step-00000050`` with ``model.safetensors``, ``optimizer.safetensors`` and
``card.json``. It is written under a temporary name, flushed to disk and renamed once the loss of its weights is known
to be good, so a folder of that name is whole and worth continuing from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..records.shardfile import flush_folder
from ..types import UserError


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`write_file` for plain data."""
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`write_file` for named tensors, as safetensors."""
    write_file(path, save({key: value.detach().contiguous().cpu() for key, value in tensors.items()}))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors ``<parameter index>.<name>``; plain numbers become 0-d tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out, in each parameter's own memory layout.

    The layout matters: arithmetic over mixed layouts may take another code path and round differently.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        same = value.shape == parameter.shape
        state.setdefault(int(index), {})[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if same else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def stage_checkpoint(run: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], card: Mapping[str, Any]) -> Path:
    """Write a checkpoint of named tensor sets under a temporary name; it is none before `keep_checkpoint`.

    Args:
        run: the training run's folder.
        step: optimiser steps done.
        parts: file stem -> named tensors, such as ``{"model": ..., "optimizer": ...}``.
        card: JSON content; `step` and the files' sha256 are added.
    """
    staged = run / "checkpoints" / f".step-{step:08d}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name, tensors in parts.items():
        write_tensors(staged / f"{name}.safetensors", tensors)
    digests = {name: sha256(staged / f"{name}.safetensors") for name in parts}
    write_json(staged / "card.json", {**card, "step": step, "sha256": digests})
    return staged


def keep_checkpoint(staged: Path) -> Path:
    """Make a staged checkpoint the run's newest, and drop all but the newest two."""
    folder, target = staged.parent, staged.with_name(staged.stem.removeprefix("."))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(staged, target)
    flush_folder(folder)
    for stale in [*checkpoints(folder.parent)[:-2], *folder.glob(".step-*")]:
        shutil.rmtree(stale, ignore_errors=True)
    return target


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if (path / "card.json").is_file())


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint back: (named tensor sets, card).

    Raises:
        UserError: if a file is missing or is not what was written.
    """
    card = json.loads((folder / "card.json").read_text())
    parts = {}
    for name, digest in card["sha256"].items():
        path = folder / f"{name}.safetensors"
        if not path.is_file() or sha256(path) != digest:
            raise UserError(f"checkpoint file '{path}' is damaged; delete '{folder}' to resume from the one before")
        parts[name] = load_file(path)
    return parts, card
