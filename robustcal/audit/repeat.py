"""Drawn records made again, cell by cell, and held against those of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import registry
from ..cell import SHARD
from ..records.shardfile import as_array
from ..records.store import Run
from ..sweep.declared import attack_meta
from ..sweep.plan import Plan
from ..sweep.replay import attack_again
from ..sweep.run import to_device
from ..sweep.worker import Worker
from ..types import Batch, Records, reason_of
from .claims import Claim
from .compare import Outcomes, among, described, same

#: Repetitions from images moved by rounding, and their size: an eighth of the last digit of an 8-bit pixel's half, in fp32.
FEW, MANY = 8, 56
NUDGE = 2.0**-22
#: What becomes of a drawn record.
SAME, FLOAT, UNLIKE, CANNOT = "same", "float", "unlike", "cannot"


@dataclass(frozen=True)
class Found:
    """What became of a drawn record: one of SAME, FLOAT, UNLIKE, CANNOT, and a line where it is one of the last two."""

    state: str
    line: str = ""


@dataclass
class Repeater:
    """Makes records again. Models and classifiers are kept between calls, as a worker of a sweep keeps them."""

    run: Run
    claims: Sequence[Claim]
    device: str = "cpu"
    worker: Worker = field(init=False)
    whole: dict[tuple[str, int], Records] = field(default_factory=dict)  #: shards repeated so far

    def __post_init__(self) -> None:
        sources = {claim.cell.dataset: claim.source for claim in self.claims}
        self.worker = Worker(Plan(tuple(claim.cell for claim in self.claims), sources), self.device)

    def classifier(self, claim: Claim, spec: str) -> Any:
        """The classifier of a model for the cell's classes and prompts."""
        return self.worker.classifier(spec, claim.cell, slot="model" if spec == claim.cell.model else "surrogate")

    def batch(self, claim: Claim, rows: Sequence[int]) -> Batch:
        """The samples of these records."""
        indices = [int(claim.source.order[claim.places[row]]) for row in rows]
        return to_device(claim.source.dataset.read(indices), self.device)

    def again(self, claim: Claim, batch: Batch) -> Records:
        """The records of these samples, made now, in this batch."""
        return attack_again(claim.cell, batch, lambda spec: self.classifier(claim, spec))[1]

    def check(self, claim: Claim, rows: Sequence[int]) -> list[Found]:
        """What becomes of these records of a cell."""
        try:
            return self._check(claim, rows)
        except Exception as error:  # of a plugin, or memory: nothing is known of these
            return [Found(CANNOT, f"{claim.cell.title}: {reason_of(error)}")] * len(rows)

    def _check(self, claim: Claim, rows: Sequence[int]) -> list[Found]:
        held = self.records(claim, rows)
        read = partial(Outcomes.of, logits="top_logits" in held)
        record = read(held)
        shared = depends_on_batch(claim)
        now: Mapping[str, Any] = self.in_their_shards(claim, rows) if shared else self.again(claim, self.batch(claim, rows))
        outcome = read(now)
        found = []
        for at, row in enumerate(rows):
            one, other = record.row(at), outcome.row(at)
            state = SAME if same(one, other) else UNLIKE
            if state == UNLIKE and shared:
                state = CANNOT
            elif state == UNLIKE:
                state = self._sensitive(claim, row, one, other, read)
            found.append(Found(state, self._line(claim, row, state, held, now, at) if state in (UNLIKE, CANNOT) else ""))
        return found

    def _sensitive(self, claim: Claim, row: int, record: Outcomes, outcome: Outcomes, read: Callable[..., Outcomes]) -> str:
        """The state of a record that is not the repeated one within rounding."""
        outcomes = outcome
        for times, count in enumerate((FEW, MANY)):
            outcomes = outcomes.joined(read(self.again(claim, self.nudged(claim, row, count, times))))
            if among(record, outcomes):
                return FLOAT
        whole = read(self.in_their_shards(claim, [row])).row(0)
        return SAME if same(record, whole) else UNLIKE

    def nudged(self, claim: Claim, row: int, count: int, seed: int) -> Batch:
        """One sample `count` times, each moved by rounding errors of its own."""
        batch = self.batch(claim, [row])
        signs = np.random.default_rng([seed, row]).integers(0, 2, (count, *batch.images.shape[1:])) * 2.0 - 1
        moved = batch.images + torch.from_numpy(signs).to(batch.images) * NUDGE
        repeated = batch.labels.expand(count, *batch.labels.shape[1:]).contiguous()
        return Batch(batch.ids * count, moved.clamp(0, 1), repeated)

    def in_their_shards(self, claim: Claim, rows: Sequence[int]) -> dict[str, Any]:
        """These records, each made again among all samples of its shard, as the sweep made it."""
        held, parts = self.run.present(claim.cell.id), []
        for row in rows:
            shard = int(claim.places[row]) // SHARD
            key = claim.cell.id, shard
            if key not in self.whole:
                self.whole[key] = self.worker.compute(replace(claim.cell, n=shard * SHARD + held[shard]), shard).records
            records = self.whole[key]
            at = list(records["id"]).index(claim.records["id"][row])
            parts.append({name: values[at : at + 1] for name, values in records.items()})
        return {name: [value for part in parts for value in part[name]] for name in parts[0]}

    def records(self, claim: Claim, rows: Sequence[int]) -> dict[str, Any]:
        """The records of the run, with their logits if it has any."""
        parts: list[Mapping[str, np.ndarray]] = []
        held = self.run.present(claim.cell.id)
        for row in rows:
            shard = int(claim.places[row]) // SHARD
            table = self.run.read_shard(claim.cell.id, shard, held[shard])
            records = {name: as_array(table.column(name)) for name in table.column_names}
            at = list(records["id"]).index(claim.records["id"][row])
            parts.append({name: values[at : at + 1] for name, values in records.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _line(self, claim: Claim, row: int, state: str, held: Mapping[str, Any], now: Mapping[str, Any], at: int) -> str:
        names = claim.cell.classnames
        where = f"{claim.cell.title}, cell {claim.cell.id}, {claim.records['id'][row]}"
        why = ": its attack depends on the batch, and the batch of the sweep is not known" if state == CANNOT else ""
        return f"{where}: recorded {described(held, at, names)}; made again {described(now, at, names)}{why}"


def depends_on_batch(claim: Claim) -> bool:
    """Whether the attack of a cell says that its numbers depend on which samples stand beside each other."""
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec(claim.cell.identity.attack))
    return bool(attack_meta(plugin, arguments).get("batch_dependent", False))


def grouped(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Drawn (cell, row) pairs by cell, in order."""
    for cell in dict.fromkeys(cell for cell, _ in places):
        yield cell, [row for other, row in places if other == cell]
