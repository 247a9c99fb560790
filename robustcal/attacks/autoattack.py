"""AutoAttack (Croce & Hein 2020) by its authors' code: standard, plus, rand, and paper, the CLIP papers' list."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .apgd import apgd, windows
from .borrowed import borrowed_state, draw_seed, need_classes, need_single_labels
from .pgd import check_positive

#: Attacks of each version where there are classes enough. `paper` is what robust CLIP papers call AutoAttack.
VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "paper": ("apgd-ce", "apgd-dlr"),
}
#: Fewest classes an attack is defined for: the ratio of logits divides by the third (targeted: also the fourth).
CLASSES_NEEDED = {"apgd-dlr": 3, "apgd-t": 4, "fab-t": 3}
SUBSTITUTES = {"apgd-t": "apgd-dlr", "fab-t": "fab"}


def meta_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Classes below which a version is not the published one."""
    return {"min_classes": 4 if arguments.get("variant") in (None, "standard", "plus") else 3}


@register.attack(
    kind="white-box", returns="success-else-clean", batch_dependent=True, accuracy_only=True, meta_of=meta_of,
    version=2,
)  # fmt: skip
def autoattack(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *,
    variant: str | None = None, steps: int = 100, queries: int = 5000, norm: str = "linf",
) -> Tensor:  # fmt: skip
    """Attacks in sequence, each on the samples still right; a sample that survives comes back clean.

    So accuracy means something here and calibration does not. Below four classes the ratio losses are undefined:
    three classes put APGD-DLR in the place of APGD-T; two classes leave APGD-CE, FAB and Square, plus our own APGD
    on the logit difference (`paper`: APGD-CE alone, as published). Targets are at most C - 1.

    Args:
        variant: standard | plus | rand | paper.
        steps: iterations of APGD and FAB.
        queries: of Square.
    """
    version = variant or "standard"
    if version not in VERSIONS:
        near = difflib.get_close_matches(version, VERSIONS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(VERSIONS)}"
        raise UserError(f"autoattack has no version '{version}'; {hint}")
    check_positive(steps=steps, queries=queries)
    need_single_labels(labels, "autoattack")
    need_classes(classifier, 2, "autoattack")
    seed, count = draw_seed(noise), classifier.num_classes
    with borrowed_state(seed), kept_trace(), torch.enable_grad():
        adversary = build(classifier, threat.eps, norm, version, seed, images.device, steps, queries)
        found: Tensor = adversary.run_standard_evaluation(images.detach().clone(), labels, batch_size=len(images))[0]
    if count == 2 and version in ("standard", "plus"):
        found = _logit_difference(classifier, images, found, labels, threat, noise, steps, norm)
    return found.detach()


def build(
    classifier: Classifier, eps: float, norm: str, version: str, seed: int, device: torch.device, steps: int = 100,
    queries: int = 5000,
) -> Any:  # fmt: skip
    """The library's own object with its attack list fitted to the number of classes."""
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise UserError("attack 'autoattack' needs its library: pip install pyautoattack") from None
    names = {"linf": "Linf", "l2": "L2"}
    if norm not in names:
        raise UserError(f"autoattack has no norm '{norm}'; there are: {', '.join(names)}")
    base = "standard" if version == "paper" else version
    adversary = AutoAttack(classifier, norm=names[norm], eps=eps, seed=seed, device=device, version=base)
    adversary.verbose = False
    adversary.attacks_to_run = list(attack_list(version, classifier.num_classes))
    targets = min(9, classifier.num_classes - 1)
    adversary.apgd_targeted.n_target_classes = min(adversary.apgd_targeted.n_target_classes, targets)
    adversary.fab.n_target_classes = targets
    for part in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
        part.n_iter = part.n_iter_orig = steps
    for part in (adversary.apgd, adversary.apgd_targeted):  # whose constructor formed them from 100
        part.n_iter_2, part.n_iter_min, part.size_decr = windows(steps)
    adversary.square.n_queries = queries
    return adversary


def attack_list(version: str, classes: int) -> tuple[str, ...]:
    """The attacks of a version that are defined for this number of classes, substitutes in place."""
    chosen = []
    for name in VERSIONS[version]:
        fitting = (n for n in (name, SUBSTITUTES.get(name)) if n and classes >= CLASSES_NEEDED.get(n, 2))
        chosen += list(fitting)[:1]
    return tuple(dict.fromkeys(chosen))


@contextmanager
def kept_trace() -> Iterator[None]:
    """The library's check for dynamic defences switches the trace function off; this puts it back."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)


def _logit_difference(
    classifier: Classifier, images: Tensor, found: Tensor, labels: Tensor, threat: Threat, noise: Noise, steps: int,
    norm: str,
) -> Tensor:  # fmt: skip
    with torch.no_grad():
        left = torch.nonzero(classifier(found).argmax(1) == labels).flatten()
    if len(left):
        found = found.clone()
        found[left] = apgd(
            classifier, images[left], labels[left], threat, noise.select(left), steps=steps, loss="margin", norm=norm,
            return_="success-else-clean",
        )  # fmt: skip
    return found
