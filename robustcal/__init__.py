"""robustcal: how accurate, and how honest about its confidence, is a zero-shot CLIP classifier under attack?

    bench        sweep models x attacks x datasets, one record per sample; returns a `Bench`
    report       tables, figures and the page of finished runs
    frame        finished runs as a pandas frame
    Bench        a run: frames, `.report(...)`, `.plot(...)`
    load_model   a model by its spec; `.classifier(classnames, templates)` gives images -> logits
    attack       one attack on a classifier and images of your own
    train        fine-tune or pre-train by a recipe
    register     the decorators for a model, attack, dataset, objective or metric of your own
    UserError    what is raised for anything the caller can mend
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import register
from .types import UserError

if TYPE_CHECKING:  # for editors and type checkers; at run time they come when they are first used
    from . import report, train
    from .api import attack, bench, frame, load_model
    from .finished import Bench

__version__ = "0.2.0"
__all__ = ["Bench", "UserError", "attack", "bench", "frame", "load_model", "register", "report", "train"]

#: Public names that need torch or pandas are imported when first used: `robustcal --help` stays instant.
_LAZY = {
    "Bench": ("robustcal.finished", "Bench"),
    "bench": ("robustcal.api", "bench"),
    "attack": ("robustcal.api", "attack"),
    "frame": ("robustcal.api", "frame"),
    "load_model": ("robustcal.api", "load_model"),
}
#: Modules that may be used as ``robustcal.NAME`` without importing them first; `report` and `train` can also be called.
_MODULES = ("clip", "datasets", "dirichlet", "metrics", "records", "report", "train")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    if name in _MODULES:
        return import_module(f"robustcal.{name}")
    raise AttributeError(f"module 'robustcal' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, and the modules that may be used without importing them."""
    return sorted({*__all__, *_MODULES, "__version__", "__doc__", "__all__"})
