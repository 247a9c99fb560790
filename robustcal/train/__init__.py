"""The trainer: recipes, the loop, fine-tuning, pre-training.

``robustcal.train("tiny/ucat")`` runs a recipe; its parameters are those of `robustcal.train.train.train`.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def _verb() -> Callable[..., Path]:
    from .train import train  # needs torch

    return train


class Verb(ModuleType):
    """A package that can be called, because the verb has its name too; see `robustcal.report.verb`."""

    def __call__(self, *args: Any, **settings: Any) -> Path:
        """Run a recipe to the end and return the run's folder."""
        return _verb()(*args, **settings)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """What ``help(robustcal.train)`` shows: how it is called."""
        return f"{vars(self)['__doc__']}\n{_verb().__doc__}"

    @property
    def __signature__(self) -> inspect.Signature:
        """The verb's own."""
        return inspect.signature(_verb())


sys.modules[__name__].__class__ = Verb
