"""Any attack class of torchattacks by name: `torchattacks:DIFGSM`, `torchattacks:FAB:steps=50`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .balls import BALLS, make_ball
from .borrowed import borrowed_state, draw_seed, need_classes, need_single_labels
from .pgd import check_positive, check_size

#: What the library's own names are here; `step` is handled apart.
RENAMED = {
    "steps": ("steps", "num_iter_set", "max_iterations", "nb_iter"),
    "queries": ("n_queries",),
    "restarts": ("n_restarts", "restarts"),
    "loss": ("loss",),
}
#: Classes whose threat is not an Linf ball. Those without a radius of their own look for the nearest point.
NORMS = {
    "CW": "l2", "PGDL2": "l2", "PGDRSL2": "l2", "DeepFool": "l2", "EADEN": "l2", "EADL1": "l1", "SparseFool": "l0",
    "OnePixel": "l0", "Pixle": "l0", "JSMA": "l0",
}  # fmt: skip
#: Classes that return the clean image, or stop at the boundary: fine for accuracy, meaningless for calibration.
ACCURACY_ONLY = {
    "APGD", "APGDT", "FAB", "Square", "AutoAttack", "CW", "DeepFool", "EADEN", "EADL1", "SparseFool", "OnePixel",
    "Pixle", "JSMA",
}  # fmt: skip
BLACK_BOX = {"Square", "SPSA", "OnePixel", "Pixle"}
CONTROLS = {"VANILA": "clean", "GN": "control"}
FEW_CLASSES = {"APGDT": 4, "AutoAttack": 4}


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the class that the variant names."""
    name = find_class(arguments.get("variant"))
    norm = NORMS.get(name, "linf")
    return {
        "norm": arguments.get("norm") or norm,
        "accuracy_only": name in ACCURACY_ONLY,
        "returns": "success-else-clean" if name in ACCURACY_ONLY else "last",
        "kind": CONTROLS.get(name, "black-box" if name in BLACK_BOX else "white-box"),
        "uses_eps": name != "VANILA" and norm in BALLS,
        "min_classes": FEW_CLASSES.get(name, 3 if arguments.get("loss") == "dlr" else 2),
    }


@register.attack(kind="white-box", batch_dependent=True, meta_of=meta_of, version=1)
def torchattacks(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *,
    variant: str | None = None, steps: int | None = None, step: float | None = None, restarts: int | None = None,
    queries: int | None = None, loss: str | None = None, norm: str | None = None,
) -> Tensor:  # fmt: skip
    """One attack of the library on this classifier; parameters left out keep the library's defaults.

    The number of classes and the radius come from here, never from the library's defaults. A minimal-norm attack
    (CW, DeepFool, EADEN) gets no radius; what it finds is projected onto the ball.

    Args:
        variant: the class name, as in torchattacks.__all__.
        step: default the library's own, scaled to this radius as its default is to its default radius.
        norm: for the classes that have the choice (APGD, APGDT, FAB, Square, AutoAttack): linf or l2.
    """
    name = find_class(variant)
    check_positive(steps=steps, restarts=restarts, queries=queries)
    check_size(step)
    need_single_labels(labels, f"torchattacks:{name}")
    seed = draw_seed(noise)
    asked = {"steps": steps, "step": step, "restarts": restarts, "queries": queries, "loss": loss, "norm": norm}
    need_classes(classifier, FEW_CLASSES.get(name, 2), f"torchattacks:{name}")
    with borrowed_state(seed), torch.enable_grad():
        settings = arguments_of(name, threat.eps, classifier.num_classes, seed, asked)
        attack = _library(name)(classifier, **settings)
        attack.set_device(images.device)
        if name == "JSMA":  # its target is (label + 1) mod 10 whatever the number of classes
            attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % classifier.num_classes, quiet=True)
        try:
            found: Tensor = attack(images.detach().clone(), labels).detach()
        except (AssertionError, ValueError) as error:  # how the library refuses a norm or a loss
            refused = " ".join(f"{key}={value}" for key, value in asked.items() if value is not None)
            raise UserError(f"torchattacks:{name} does not take {refused or 'these images'} {error}".rstrip()) from None
    ball = NORMS.get(name, "linf")
    if "eps" not in settings and "max_epsilon" not in settings and ball in BALLS:
        found = make_ball(images, threat, ball).project(found)
    return found


def find_class(variant: str | None) -> str:
    """The class a variant names, whatever its case.

    Raises:
        UserError: no such class, or one that needs more than a classifier.
    """
    names: dict[str, str] = {name.lower(): name for name in _library().__all__}
    if variant is None or variant.lower() not in names:
        near = difflib.get_close_matches((variant or "").lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(names[n] for n in near)}?" if near else "try torchattacks:DIFGSM"
        raise UserError(f"torchattacks has no attack '{variant or ''}'; {hint}")
    name = names[variant.lower()]
    if name in ("MultiAttack", "LGV"):
        raise UserError(f"torchattacks:{name} wraps other attacks or models; name the attacks one by one instead")
    return name


def arguments_of(name: str, eps: float, classes: int, seed: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a class.

    Raises:
        UserError: a parameter was asked for that the class does not have.
    """
    known = inspect.signature(_library(name).__init__).parameters
    settings: dict[str, Any] = {}
    for key in ("eps", "max_epsilon"):
        if key in known:
            settings[key] = eps
            if "alpha" in known:
                settings["alpha"] = known["alpha"].default * eps / known[key].default
    settings |= {key: value for key, value in {"n_classes": min(classes, 10), "seed": seed}.items() if key in known}
    for key, value in asked.items():
        if value is None:
            continue
        own = next((o for o in {**RENAMED, "step": ("alpha",), "norm": ("norm",)}[key] if o in known), None)
        if own is None:
            raise UserError(f"torchattacks:{name} has no parameter '{key}'; it takes: {', '.join(_public(known))}")
        settings[own] = {"linf": "Linf", "l2": "L2"}.get(value, value) if key == "norm" else value
    return settings


def _public(known: Mapping[str, Any]) -> list[str]:
    pairs = {**RENAMED, "step": ("alpha",), "norm": ("norm",)}
    return [key for key, names in pairs.items() if any(name in known for name in names)] or ["none"]


def _library(name: str | None = None) -> Any:
    try:
        import torchattacks as library
    except ImportError:
        raise UserError("attack 'torchattacks' needs its library: pip install 'robustcal[torchattacks]'") from None
    return getattr(library, name) if name else library
