"""robustcal: how accurate, and how honest about its confidence, is a zero-shot CLIP classifier under attack?"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .registry import register
from .types import UserError

__version__ = "0.2.0"
__all__ = ["UserError", "attack", "bench", "frame", "load_model", "register", "train"]

#: Public names that need torch or pandas are imported when first used: `robustcal --help` stays instant.
_LAZY = {
    "bench": ("robustcal.api", "bench"),
    "attack": ("robustcal.api", "attack"),
    "frame": ("robustcal.api", "frame"),
    "load_model": ("robustcal.api", "load_model"),
    "train": ("robustcal.train.train", "train"),
}
#: Modules that may be used as ``robustcal.NAME`` without importing them first.
_MODULES = ("clip", "datasets", "dirichlet", "metrics", "records", "report")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    if name in _MODULES:
        return import_module(f"robustcal.{name}")
    raise AttributeError(f"module 'robustcal' has no attribute '{name}'")
