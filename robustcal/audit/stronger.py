"""By how much a table overstates: drawn survivors attacked with far more, drawn confidences moved with far more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from .. import registry
from ..exact import full_fp32
from ..noise import Noise
from ..records.signoff import Stronger
from ..report.worst_rows import HARMFUL_GOALS, HARMFUL_KINDS
from ..sweep.run import make_attack
from ..sweep.single import frozen
from ..sweep.verify import predict, project
from ..types import Batch
from .claims import Claim
from .conclude import CONFIDENCE, share_limits
from .draw import draw
from .repeat import Repeater, grouped

#: Tried in this order on what still stands, with other random numbers than the run's; ``square`` in the Linf ball only.
SUITE = (
    "apgd:loss=ce:steps=100:restarts=3", "apgd:loss=dlr:steps=100:restarts=3", "apgd:loss=margin:steps=100:restarts=3",
    "apgd:loss=targeted:steps=100", "square:queries=1000",
)  # fmt: skip
#: Crafted on every other model of the run.
TRANSFER = "pgd:steps=50"
#: Goals whose per-sample gap is what the attack climbs, and what they are repeated with.
GAP_GOALS, LONGER = ("miscalibration", "calibration-gap"), {"steps": 100, "restarts": 5}
FALL, RISE = "survivors that fall", "rise of the gap between confidence and correctness"


@dataclass(frozen=True)
class Group:
    """The cells of one model, data set, radius and norm that break labels, and the rows that are right in all of them."""

    claims: tuple[Claim, ...]
    rows: np.ndarray


def stronger(repeater: Repeater, samples: int, seed: int) -> list[Stronger]:
    """What far more attacking changes, of survivors and of confidences, each where the run has such cells."""
    return [*survivors(repeater, samples, seed), *gaps(repeater, samples, seed)]


# -- accuracy ----------------------------------------------------------------------------------------------------
def survivors(repeater: Repeater, samples: int, seed: int) -> list[Stronger]:
    """The share of drawn survivors of all label attacks of their radius that fall to more.

    A robust accuracy A of the run, the worst case over its attacks, is too high by at least this share of A.
    """
    groups = [group for group in groups_of(repeater.claims) if len(group.rows)]
    drawn = draw([len(group.rows) for group in groups], samples, seed + 1)
    fallen = 0
    for at, rows in grouped(drawn):
        fallen += int((~still_right(repeater, groups[at], [int(groups[at].rows[row]) for row in rows], seed)).sum())
    if not drawn:
        return []
    low, high = share_limits(fallen, len(drawn))
    population = sum(len(group.rows) for group in groups)
    attacks = (*SUITE, f"{TRANSFER} on the other models of the run")
    return [Stronger(FALL, attacks, len(drawn), population, fallen / len(drawn), low, high)]


def groups_of(claims: Sequence[Claim]) -> list[Group]:
    """The groups of a run, in the order of cells. Cells of fewer samples than others count for those they have."""
    members: dict[tuple[str, ...], list[Claim]] = defaultdict(list)
    for claim in claims:
        cell = claim.cell
        harmful = cell.kind in HARMFUL_KINDS and cell.threat.goal in HARMFUL_GOALS and cell.threat.norm in ("linf", "l2")
        if harmful and cell.task == "single":
            members[cell.model, cell.dataset, cell.eps, cell.threat.norm, str(cell.seed)].append(claim)
    found = []
    for group in members.values():
        common = min(claim.rows for claim in group)
        right = np.logical_and.reduce([claim.records["correct"][:common] for claim in group])
        found.append(Group(tuple(group), np.flatnonzero(right)))
    return found


@full_fp32()
def still_right(repeater: Repeater, group: Group, rows: Sequence[int], seed: int) -> np.ndarray:
    """Which of these rows (K,) no attack brings down."""
    claim = group.claims[0]
    batch, classifier = repeater.batch(claim, rows), repeater.classifier(claim, claim.cell.model)
    right = predict(classifier, batch.images).argmax(1) == batch.labels.cpu()
    with frozen(classifier):
        for spec, source in tries(repeater, claim):
            alive = right.nonzero()[:, 0]
            if not len(alive):
                break
            part = Batch(tuple(batch.ids[i] for i in alive.tolist()), batch.images[alive], batch.labels[alive])
            found = attacked(spec, source or classifier, claim, part, seed)
            right[alive] = predict(classifier, found).argmax(1) == part.labels.cpu()
    return right.numpy()


def tries(repeater: Repeater, claim: Claim) -> Iterator[tuple[str, torch.nn.Module | None]]:
    """Attack specs, each with the classifier it is crafted on where that is another model's."""
    norm = claim.cell.threat.norm
    for spec in SUITE:
        if norm == "linf" or not spec.startswith("square"):
            yield (spec if norm == "linf" else f"{spec}:norm={norm}"), None
    for other in dict.fromkeys(one.cell.model for one in repeater.claims):
        if other != claim.cell.model:
            yield f"{TRANSFER}:norm={norm}", repeater.classifier(claim, other)


def attacked(spec: str, classifier: torch.nn.Module, claim: Claim, batch: Batch, seed: int) -> Tensor:
    """The images of an attack, in the cell's ball, with random numbers of their own."""
    threat = replace(claim.cell.threat, returns="best")
    noise = Noise(seed + 1, batch.ids, batch.images.device)
    proposal = make_attack(spec)(classifier, batch.images.clone(), batch.labels.clone(), threat, noise).detach()
    return project(batch.images, proposal, threat)


# -- confidence --------------------------------------------------------------------------------------------------
def gaps(repeater: Repeater, samples: int, seed: int) -> list[Stronger]:
    """By how much the mean of |confidence - correct|, which no ECE exceeds, rises where confidence attacks go on for longer.

    The attacker keeps the larger gap of the two, so that no rise is negative.
    """
    chosen = [c for c in repeater.claims if c.cell.threat.goal in GAP_GOALS and c.cell.identity.attack.startswith("confidence")]
    drawn = draw([claim.rows for claim in chosen], samples, seed + 2)
    rises: list[float] = []
    for at, rows in grouped(drawn):
        claim = chosen[at]
        spec = registry.attacks.spec(claim.cell.identity.attack)
        longer = replace(claim.cell.identity, attack=str(replace(spec, params={**spec.params, **LONGER})))
        now = repeater.again(replace(claim, cell=replace(claim.cell, identity=longer)), repeater.batch(claim, rows))
        before = np.abs(claim.records["confidence"][rows] - claim.records["correct"][rows])
        rises += np.maximum(np.abs(now["confidence"] - now["correct"]) - before, 0).tolist()
    if not rises:
        return []
    mean, count = float(np.mean(rises)), len(rises)
    width = float(student.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(rises, ddof=1) / count**0.5) if count > 1 else 1.0
    words = ":".join(f"{key}={value}" for key, value in LONGER.items())
    limits = max(mean - width, 0.0), min(mean + width, 1.0)
    return [Stronger(RISE, (f"confidence:{words}",), count, sum(claim.rows for claim in chosen), mean, *limits)]
