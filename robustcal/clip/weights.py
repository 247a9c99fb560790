"""Weights without surprises: sha256, safe loading, and strict agreement with the architecture and its activation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import UserError
from .untrusted import load_payload, some

if TYPE_CHECKING:  # hashing must stay cheap to import: the planner identifies models without torch
    from torch import Tensor, nn

#: Where released checkpoints keep the tensors, most specific first. The prompt-tuning lineage stores its visual
#: prompter under `state_dict` beside the image tower, so the tower's own key must win.
CONTAINERS = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")


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


def load_state_dict(path: str | Path, container: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, floating point cast to float32.

    Args:
        path: a `.safetensors` file or a checkpoint in PyTorch's zip format.
        container: which entry of a checkpoint holds the tensors; default: the first of `CONTAINERS` present.

    Raises:
        UserError: naming the file, if it is missing, truncated, no weights file, would run code when read, claims
            more data than it holds, or has values that are not finite.
    """
    return tensors_of(load_payload(path), path, container)


def tensors_of(payload: Mapping[str, Any], path: str | Path, container: str | None = None) -> dict[str, Tensor]:
    """The state dict inside what `load_payload` returned, checked and cast; see `load_state_dict`."""
    sets = tensor_sets(payload)
    if container is not None:
        if container not in sets:
            raise UserError(f"'{path}' has no entry '{container}' with tensors; it has: {some(sets or payload, 8) or 'none'}")
        return {key: _checked(key, value, path) for key, value in sets[container].items()}
    if not sets:
        raise UserError(f"'{path}' holds no weights; its entries are: {some(payload) or 'none'}")
    chosen = next((name for name in (*CONTAINERS, "") if name in sets), None)
    if chosen is None and len(sets) == 1:
        chosen = next(iter(sets))
    twins = [name for name in sets if chosen is None or _twins(sets[chosen], sets[name])]
    if chosen is None or len(twins) > 1:
        told = f"holds several sets of weights ({some([name or 'its top level' for name in twins], 8)})"
        raise UserError(f"'{path}' {told}, such as a model and its moving average; choose one: checkpoint:FILE:entry=NAME")
    return {key: _checked(key, value, path) for key, value in sets[chosen].items()}


def tensor_sets(payload: Mapping[str, Any], inside: str = "", depth: int = 3) -> dict[str, dict[str, Tensor]]:
    """The sets of named tensors in a checkpoint, by the path of their entry: ``{"state_dict": ..., "ema.model": ...}``."""
    own = {str(key): value for key, value in payload.items() if _is_tensor(value)}
    found = {inside: own} if own else {}
    for name, inner in payload.items():
        if isinstance(inner, Mapping) and isinstance(name, str) and depth > 0:
            found |= tensor_sets(inner, f"{inside}.{name}" if inside else name, depth - 1)
    return found


def _twins(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets are tensors of one network: half the names of the smaller, without wrappers, are in the other."""
    names = [{key.removeprefix("module.") for key in part} for part in (a, b)]
    return 2 * len(names[0] & names[1]) > min(map(len, names))


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _checked(key: str, value: Tensor, path: str | Path) -> Tensor:
    """The tensor in float32 (if floating), after a look at its size and values."""
    import torch

    if value.layout is not torch.strided or value.is_quantized:
        raise UserError(f"'{path}': tensor '{key}' is sparse or quantised; dense weights are needed")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"'{path}': tensor '{key}' claims shape {tuple(value.shape)} but holds far less data")
    if not value.is_floating_point():
        return value
    value = value.detach().float()
    if key.rpartition(".")[2] != "attn_mask" and not torch.isfinite(value).all():
        raise UserError(f"'{path}': tensor '{key}' has values that are not finite")
    return value


def match(state: Mapping[str, Tensor], module: nn.Module, where: str = "checkpoint") -> None:
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
    told = [f"{len(names)} {what} ({some(names)})" for what, names in problems if names]
    if told:
        raise UserError(f"'{where}' is of another architecture than {type(module).__name__}: {'; '.join(told)}")


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str = "checkpoint") -> None:
    """Load `state` into `module` after a strict `match`."""
    match(state, module, where)
    module.load_state_dict(dict(state), strict=True)


def activation(module: nn.Module) -> str:
    """The activation of a tower's MLPs: "quickgelu" (x * sigmoid(1.702 x), OpenAI), "gelu", "relu" or "none"."""
    kinds = {type(part).__name__.lower() for part in module.modules()}
    found: list[str] = [kind for kind in ("quickgelu", "gelu", "relu") if kind in kinds]
    return "+".join(found) if len(found) > 1 and "relu" not in found else (found or ["none"])[0]


def check_activation(wanted: str | None, module: nn.Module, where: str) -> None:
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


def save_state_dict(state: Mapping[str, Tensor], path: str | Path, dtype: Any = None) -> str:
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
