"""Weights without surprises: safe loading, sha256, and strict agreement with the architecture and its activation.

Nothing here ever runs code from a file: safetensors, or PyTorch's zip format read by its weights-only unpickler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from .types import UserError

if TYPE_CHECKING:  # hashing must stay cheap to import: the planner identifies models without torch
    from torch import Tensor, nn

#: Where released checkpoints keep the tensors, most specific first. The prompt-tuning lineage stores its visual
#: prompter under `state_dict` beside the image tower, so the tower's own key must win.
CONTAINERS = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")
#: A pickle holds names and shapes; the tensors lie beside it. Larger than this it is not a checkpoint.
LARGEST_PICKLE = 64 << 20


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file. Remembered until the file's size or time changes."""
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        raise UserError(f"weights file '{path}' does not exist") from None
    return _sha256(str(path.resolve()), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _sha256(path: str, mtime: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """One sha256 for several facts (hashes, activations, parameters), in order."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def load_state_dict(path: str | Path, container: str | None = None) -> "dict[str, Tensor]":
    """The tensors of a weights file by name, on the CPU, floating point cast to float32.

    Args:
        path: a `.safetensors` file or a checkpoint in PyTorch's zip format.
        container: which entry of a checkpoint holds the tensors; default: the first of `CONTAINERS` present.

    Raises:
        UserError: naming the file, if it is missing, truncated, no weights file, would run code when read, claims
            more data than it holds, or has values that are not finite.
    """
    return tensors_of(load_payload(path), path, container)


def tensors_of(payload: Mapping[str, Any], path: str | Path, container: str | None = None) -> "dict[str, Tensor]":
    """The state dict inside what `load_payload` returned, checked and cast; see `load_state_dict`."""
    if container is not None:
        inner = payload.get(container)
        if not isinstance(inner, Mapping):
            raise UserError(f"'{path}' has no entry '{container}'; it has: {_some(payload)}")
    else:
        present = (payload[name] for name in CONTAINERS if isinstance(payload.get(name), Mapping) and payload[name])
        inner = next(present, payload)
    state = {str(key): value for key, value in inner.items() if _is_tensor(value)}
    if not state:
        raise UserError(f"'{path}' holds no weights; its entries are: {_some(payload) or 'none'}")
    return {key: _checked(key, value, path) for key, value in state.items()}


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


def _load_safetensors(path: Path) -> "dict[str, Tensor]":
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


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _checked(key: str, value: "Tensor", path: str | Path) -> "Tensor":
    """The tensor in float32 (if floating), after a look at its size and values."""
    import torch

    if value.layout is not torch.strided or value.is_quantized:
        raise UserError(f"'{path}': tensor '{key}' is sparse or quantised; dense weights are needed")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"'{path}': tensor '{key}' claims shape {tuple(value.shape)} but holds far less data")
    if not value.is_floating_point():
        return value
    value = value.detach().float()
    if not torch.isfinite(value).all():
        raise UserError(f"'{path}': tensor '{key}' has values that are not finite")
    return value


def match(state: "Mapping[str, Tensor]", module: "nn.Module", where: str = "checkpoint") -> None:
    """Check that `state` has exactly the tensors of `module`: same names, same shapes.

    Raises:
        UserError: with the first few names that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    told = [f"{len(names)} {what} ({_some(names)})" for what, names in problems if names]
    if told:
        raise UserError(f"'{where}' is of another architecture than {type(module).__name__}: {'; '.join(told)}")


def load_into(module: "nn.Module", state: "Mapping[str, Tensor]", where: str = "checkpoint") -> None:
    """Load `state` into `module` after a strict `match`."""
    match(state, module, where)
    module.load_state_dict(dict(state), strict=True)


def activation(module: "nn.Module") -> str:
    """The activation of a tower's MLPs: "quickgelu" (x * sigmoid(1.702 x), OpenAI), "gelu", "relu" or "none"."""
    kinds = {type(part).__name__.lower() for part in module.modules()}
    found = [kind for kind in ("quickgelu", "gelu", "relu") if kind in kinds]
    return "+".join(found) if len(found) > 1 and "relu" not in found else (found or ["none"])[0]


def check_activation(wanted: str | None, module: "nn.Module", where: str) -> None:
    """Refuse weights trained with one activation in a tower built with another: it would load, and be wrong.

    Raises:
        UserError: saying both, and how to ask for the right one.
    """
    if wanted is None:
        return
    if wanted not in ("gelu", "quickgelu"):
        raise UserError(f"activation '{wanted}' is unknown; it is gelu or quickgelu")
    actual = activation(module)
    if actual in ("gelu", "quickgelu") and actual != wanted:
        raise UserError(f"'{where}' was trained with {wanted}, but the model is built with {actual}; refused")


def save_state_dict(state: "Mapping[str, Tensor]", path: str | Path, dtype: "Any" = None) -> str:
    """Write tensors as safetensors, atomically; floating point in `dtype` if given. Returns the file's sha256."""
    from safetensors.torch import save_file

    path = Path(path)
    tensors = {
        key: (value.detach().to("cpu", dtype if value.is_floating_point() else None)).contiguous().clone()
        for key, value in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return sha256(path)


def _some(names: Any, limit: int = 3) -> str:
    names = list(names)
    return ", ".join(map(str, names[:limit])) + (f", and {len(names) - limit} more" if len(names) > limit else "")
