"""Read a weights file from a stranger: nothing in it is executed, and a lie about its size is noticed.

Two formats only: safetensors, and PyTorch's zip format read by its weights-only unpickler. There is no way around it.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: A pickle holds names and shapes; the tensors lie beside it. Larger than this it is not a checkpoint.
LARGEST_PICKLE = 64 << 20


def load_payload(path: str | Path) -> dict[str, Any]:
    """Everything a weights file holds, nested as it was saved, without executing anything.

    Raises:
        UserError: see `load_state_dict`.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind == "safetensors":
        return _load_safetensors(path)
    if kind == "torch":
        return _load_torch(path)
    raise UserError(f"'{path}' {kind}")


def file_kind(path: Path) -> str:
    """"safetensors", "torch", or the sentence that says why the file is neither."""
    if path.is_dir():
        return "is a folder, not a weights file"
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    text = head.lstrip().lower()
    if not head:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights: the download failed or needs a log-in"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not weights: run 'git lfs pull'"
    if head.startswith(b"PK\x03\x04"):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":
        return (
            "is a bare pickle, which could run code when read, so it is refused; "
            "save the state dict again with torch.save (1.6 or later) or as safetensors"
        )
    return "is no weights file that can be read safely (safetensors, or a torch.save zip)"


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    size = path.stat().st_size
    if 8 + header > size:
        raise UserError(f"'{path}' is truncated: its header alone needs {8 + header} bytes, it has {size}")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{path}' is truncated or damaged safetensors ({reason})") from None


def _load_torch(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    _check_archive(path)
    try:
        # The content was looked at, so the name must not choose another reader: hand over the open file.
        with open(path, "rb") as file, torch.serialization.safe_globals(list(_inert_types())):
            payload = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        name = found.group(1) if found else "code"
        raise UserError(f"'{path}' asks to run '{name}' when read; refused, nothing was run") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{path}' is damaged or no checkpoint ({type(error).__name__}: {reason[:120]})") from None
    if not isinstance(payload, Mapping):
        raise UserError(f"'{path}' holds a {type(payload).__name__}, not a state dict")
    return {str(key): value for key, value in payload.items()}


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is (torch.save never compresses), or that carries programs."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"'{path}' is truncated or damaged ({error})") from None
    names = {entry.filename.rsplit("/", 1)[-1]: entry for entry in entries}
    if "constants.pkl" in names:
        raise UserError(f"'{path}' is a TorchScript program, not weights; save its state_dict() as safetensors")
    size = path.stat().st_size
    if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
        raise UserError(f"'{path}' unpacks to more than its {size} bytes, which no saved checkpoint does; refused")
    if "data.pkl" not in names:
        raise UserError(f"'{path}' is a zip archive without PyTorch weights in it")
    if names["data.pkl"].file_size > LARGEST_PICKLE:
        raise UserError(f"'{path}' describes its tensors in {names['data.pkl'].file_size} bytes; refused as damaged")


def _inert_types() -> Iterator[Any]:
    """Types that released checkpoints hold beside the weights (scores, options): plain data, no behaviour."""
    import numpy as np

    core = getattr(np, "_core", None) or np.core
    yield from (argparse.Namespace, np.dtype)
    # NumPy 2 moved it; files written under NumPy 1 name the old place, whichever is installed here.
    yield from ((core.multiarray.scalar, f"numpy.{name}.multiarray.scalar") for name in ("core", "_core"))
    yield from (getattr(np.dtypes, name) for name in ("Float64DType", "Float32DType", "Int64DType", "BoolDType"))


def some(names: Iterable[Any], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    return ", ".join(map(str, names[:limit])) + (f", and {len(names) - limit} more" if len(names) > limit else "")
