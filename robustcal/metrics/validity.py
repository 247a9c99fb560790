"""Validity flags: what makes a number doubtful, read from the records. No flag is a verdict; each has a next step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.special import bdtrc

from ..cell import Cell
from ..registry import parse_spec
from ..types import Records, Spec

#: Flag -> (meaning, next step). The first six are set per sample by the engine, the others per cell from here and `defences`.
FLAGS: dict[str, tuple[str, str]] = {
    "outside-ball": (
        "the attack proposed images farther from the clean ones than the radius; they were projected back",
        "check the attack's norm and its own eps; the number holds for the projected images",
    ),
    "outside-range": (
        "the attack proposed pixels outside [0, 1]; they were clipped",
        "let the attack clip to the range; the number holds for the clipped images",
    ),
    "non-finite": (
        "the attack proposed pixels that are not numbers; the clean pixels took their place",
        "look for overflow: attack in fp32, and try loss=margin or loss=dlr",
    ),
    "zero-gradients": (
        "an input gradient was zero everywhere, so a step did not move or kept its random start",
        "attack in fp32, use loss=margin or loss=dlr, add square; if it stays, the model masks gradients",
    ),
    "precision-disagreement": (
        "the prediction in the attack's precision and in fp32 differ; the record holds the fp32 one",
        "repeat with --precision fp32; small counts are samples near the decision boundary",
    ),
    "label-changed": (
        "a confidence attack changed the predicted label that it promises to keep",
        "read its accuracy before its calibration; more steps or a smaller step keep the label",
    ),
    "weaker-than-noise": (
        "random noise of the same radius breaks significantly more samples than this attack",
        "check for zero gradients, then try more steps, loss=margin, or apgd",
    ),
    "more-steps-weaker": (
        "the same attack with fewer steps or queries breaks significantly more samples",
        "use return=best and a step that shrinks with the number of steps, or apgd",
    ),
    "larger-radius-weaker": (
        "the same attack at a smaller radius breaks significantly more samples",
        "a larger ball contains the smaller one: give the larger radius more steps or restarts, or apgd",
    ),
    "black-box-stronger": (
        "an attack without this model's gradients breaks significantly more samples than every white-box attack here",
        "gradient masking: do not quote the white-box number; attack adaptively or quote the worst case",
    ),
    "not-adaptive": (
        "a test-time defence was attacked only by attacks that ignore it, or that ignore its randomness",
        "add pgd on the defended model, and eot and bpda where it is randomised; until then the number bounds nothing",
    ),
    "robust-above-clean": (
        "significantly more samples are right under attack than without",
        "no attack worth the name does that: the defence treats clean images as attacked ones; attack it adaptively",
    ),
    "few-classes": (
        "too few classes for the attack as published; a loss or target count was replaced",
        "compare only with numbers of the same class count; say so beside the number",
    ),
    "accuracy-only": (
        "the attack returns clean or boundary images for some samples: its accuracy is valid, its calibration is not",
        "for calibration use pgd or apgd with return=best, or confidence",
    ),
    "classes-alike": (
        "some classes cannot be told apart: one name, an empty one, or one text embedding",
        "rename or leave out these classes, or change the template; until then accuracy and ECE are partly a guess between them",
    ),
    "unreadable-skipped": (
        "images of the dataset could not be read and were left out, as --skip-unreadable asked",
        "mend or replace the images and run without the option; until then compare only cells of the same n",
    ),
    "uncertainty-suppressed": (
        "the mean uncertainty falls from one strength to a larger one while the accuracy falls too",
        "do not read low uncertainty as safety; the remarks below the table say where it falls, `conformal` what it costs",
    ),
}

LEVEL = 0.001  #: one-sided error rate at which "significantly" is said in a comparison of two cells
#: Whether the first cell's attack breaks significantly fewer samples than the second's.
Weaker = Callable[[Cell, Cell], bool]
HARMFUL = ("white-box", "black-box", "transfer")
BUDGETS = ("steps", "queries")


def count_flags(records: Records) -> dict[str, int]:
    """How many samples carry each flag, by name."""
    texts, counts = np.unique(np.asarray(list(records["flags"])).astype(str), return_counts=True)
    found: Counter[str] = Counter()
    for text, count in zip(texts, counts):
        found.update({flag: int(count) for flag in text.split(",") if flag})
    return dict(sorted(found.items()))


def cross_flags(cells: Sequence[Cell], read: Callable[[str], Records]) -> dict[str, list[str]]:
    """The flags of whole cells, most of which only a look at the other cells can give: {cell id: [flags]}.

    Cells are compared where model, dataset and samples are the same, sample by sample (`exceeds`).

    Args:
        cells: as stored in ``cell.json``; of one or of many models and datasets.
        read: cell id -> records; of them `id` and `correct` are used, each cell's at most once.
    """
    found: dict[str, list[str]] = {cell.id: own_flags(cell) for cell in cells}
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.dataset, cell.precision, cell.n), []).append(cell)
    for group in groups.values():
        compared = [c for c in group if c.kind in HARMFUL and _untargeted(c)]
        controls = [c for c in group if c.kind == "control"]
        if len(compared) + len(controls) > 1:
            table = {c.id: _outcome(read(c.id)) for c in compared + controls}
            for flag, rule in RULES.items():
                for cell in rule(compared, controls, lambda a, b: _weaker(table[a.id], table[b.id])):
                    found[cell.id].append(flag)
    return {name: list(dict.fromkeys(flags)) for name, flags in found.items()}


def own_flags(cell: Cell) -> list[str]:
    """Flags that follow from the definition of one cell."""
    flags = []
    if len(cell.classnames) < cell.min_classes:
        flags.append("few-classes")
    if cell.accuracy_only:
        flags.append("accuracy-only")
    if cell.skipped:
        flags.append("unreadable-skipped")
    return flags


# -- rules: (attacks, controls, weaker) -> the cells to flag; weaker(a, b): a breaks significantly fewer samples -----


def _weaker_than_noise(attacks: list[Cell], controls: list[Cell], weaker: Weaker) -> list[Cell]:
    return [a for a in attacks if any(_ball(a) == _ball(c) and weaker(a, c) for c in controls)]


def _more_steps_weaker(attacks: list[Cell], controls: list[Cell], weaker: Weaker) -> Iterator[Cell]:
    for budget in BUDGETS:
        for a in attacks:
            own, size = _without(a, budget)
            for b in attacks:
                other, smaller = _without(b, budget)
                alike = own == other and _ball(a) == _ball(b)
                if alike and size is not None and smaller is not None and size > smaller and weaker(a, b):
                    yield a


def _larger_radius_weaker(attacks: list[Cell], controls: list[Cell], weaker: Weaker) -> list[Cell]:
    def same(a: Cell, b: Cell) -> bool:
        return a.attack == b.attack and a.threat.norm == b.threat.norm

    return [a for a in attacks if any(same(a, b) and _eps(a) > _eps(b) and weaker(a, b) for b in attacks)]


def _black_box_stronger(attacks: list[Cell], controls: list[Cell], weaker: Weaker) -> list[Cell]:
    flagged = []
    for ball in dict.fromkeys(_ball(a) for a in attacks):
        here = [a for a in attacks if _ball(a) == ball]
        white = [a for a in here if a.kind == "white-box"]
        blind = [a for a in here if a.kind != "white-box"]
        if any(all(weaker(w, b) for w in white) for b in blind):
            flagged += white
    return flagged


RULES: dict[str, Callable[[list[Cell], list[Cell], Weaker], Iterable[Cell]]] = {
    "weaker-than-noise": _weaker_than_noise, "more-steps-weaker": _more_steps_weaker,
    "larger-radius-weaker": _larger_radius_weaker, "black-box-stronger": _black_box_stronger,
}  # fmt: skip


def exceeds(more: int, fewer: int, level: float = LEVEL) -> bool:
    """Exact one-sided sign test (McNemar): whether `more` of the discordant pairs is too many for a fair coin.

    >>> exceeds(9, 0), exceeds(10, 0), exceeds(60, 40)
    (False, True, False)
    """
    return more > fewer and bool(bdtrc(more - 1, more + fewer, 0.5) < level)


def _weaker(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    if not np.array_equal(a[0], b[0]):
        return False
    return exceeds(int((a[1] & ~b[1]).sum()), int((~a[1] & b[1]).sum()))


def _outcome(records: Records) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(records["id"]), np.asarray(records["correct"], dtype=bool)


def _untargeted(cell: Cell) -> bool:
    return cell.threat.goal == "untargeted"


def _eps(cell: Cell) -> Fraction:
    return Fraction(cell.eps)


def _ball(cell: Cell) -> tuple[str, Fraction]:
    return cell.threat.norm, _eps(cell)


def _without(cell: Cell, budget: str) -> tuple[str, int | None]:
    """The attack's spec without its budget, and the budget."""
    spec = parse_spec(cell.attack)
    params = dict(spec.params)
    size = params.pop(budget, None)
    return str(Spec(spec.name, spec.variant, params)), None if size in (None, "none") else int(size)
