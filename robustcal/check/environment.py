"""What this machine offers: Python, packages and extras, devices, the data folder, the network."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def environment() -> list[Row]:
    """Rows {name, ok, text, required}: one per fact."""
    return [*interpreter(), *packages(), *devices(), *folders(), *network()]


def interpreter() -> Iterator[Row]:
    """The Python version against the one the package declares."""
    found = platform.python_version()
    ok = sys.version_info >= (3, 11)
    yield row("python", ok, found if ok else f"{found}; robustcal needs 3.11 or later", required=True)


def packages() -> Iterator[Row]:
    """Installed versions against the package's own requirements; extras are optional."""
    from packaging.requirements import Requirement

    try:
        stated = importlib.metadata.requires("robustcal") or []
        yield row("robustcal", True, importlib.metadata.version("robustcal"))
    except importlib.metadata.PackageNotFoundError:
        yield row("robustcal", False, "runs from its folder without being installed: pip install -e .")
        return
    for requirement in map(Requirement, stated):
        extra = _extra(requirement)
        name = f"{requirement.name} [{extra}]" if extra else requirement.name
        wanted = f"robustcal[{extra}]" if extra else f"{requirement.name}{requirement.specifier}"
        how = f"pip install '{wanted}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield row(name, False, f"not installed: {how}", required=not extra)
            continue
        ok = requirement.specifier.contains(version, prereleases=True)
        yield row(name, ok, version if ok else f"{version} is too old: {how}", required=not extra)


def _extra(requirement: Any) -> str:
    """The extra a requirement belongs to; empty for an ordinary one."""
    for part in getattr(requirement.marker, "_markers", []):
        if isinstance(part, tuple) and str(part[0]) == "extra":
            return str(part[2]).strip("\"'")
    return ""


def devices() -> Iterator[Row]:
    """CPU and memory, then every accelerator that torch can use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield row("cpu", True, f"{cores} cores, {torch.get_num_threads()} torch threads")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield row(f"cuda:{index}", True, f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}")
    if torch.backends.mps.is_available():
        yield row("mps", True, "Apple GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield row("gpu", False, "none that torch can use; everything runs on the CPU, real-size models slowly")


def folders() -> Iterator[Row]:
    """The data folder: where it is, whether it can be written, how much room is left."""
    from ..datasets.root import data_root

    root = data_root()
    above = next(folder for folder in (root, *root.parents) if folder.exists())
    ok = os.access(above, os.W_OK)
    free = shutil.disk_usage(above).free / 2**30
    where = f"{root}{'' if root.exists() else ' (made when needed)'}"
    advice = "" if ok else "; not writable: set ROBUSTCAL_DATA to a folder that is"
    yield row("data folder", ok, f"{where}, {free:.0f} GiB free{advice}")
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    yield row("hub cache", True, f"{home}{'' if home.exists() else ' (empty)'}")


def network() -> Iterator[Row]:
    """Whether published weights can be downloaded."""
    from ..models.hub import reachable

    ok = reachable()
    text = "the hub is reachable" if ok else "the hub is not reachable; use local-dir:PATH for models"
    yield row("network", ok, text)


def row(name: str, ok: bool, text: str, required: bool = False) -> Row:
    """One line of a check."""
    return {"name": name, "ok": bool(ok), "text": text, "required": required}
