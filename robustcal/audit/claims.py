"""What a run claims, cell by cell, held against itself and against the weights, data and attacks that are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .. import registry
from ..cell import SHARD, Cell, Identity
from ..clip.prompts import prompts_hash
from ..records.content import LOGITS
from ..records.shardfile import as_array, skipped_in
from ..records.store import DamagedShard, Run
from ..sweep.declared import surrogate_of
from ..sweep.plan import Request, make_cell, model_identity
from ..sweep.reading import unreadable
from ..sweep.samples import Source, make_source
from ..sweep.verify import TOLERANCE
from ..types import Spec, UserError, parse_radius

#: Of an identity: what tells that something here is not what the record was made with, in words.
HERE = {
    "model": "spec of the model", "dataset": "spec of the data set", "attack": "spec of the attack", "data": "data",
    "prompts": "prompts", "order": "samples or their order", "attack_version": "version of the attack",
    "attack_file": "file of the attack", "record_version": "record version",
}  # fmt: skip
#: What follows from the specs of a cell, so that a cell that says otherwise contradicts itself.
FOLLOWS = ("classnames", "templates", "dataset_size", "task", "resolution", "kind", "accuracy_only", "keeps_label", "min_classes")
#: Columns that are read of every record.
SCALARS = ("id", "label", "labels", "correct", "prediction", "confidence", "label_probability", "linf", "l2")


@dataclass(frozen=True)
class Claim:
    """A cell that can be made again: where its samples come from, and of each of its `rows` records the scalars."""

    cell: Cell
    source: Source
    records: dict[str, np.ndarray]
    places: np.ndarray  #: (rows,) of each record, its sample's place in the order

    @property
    def rows(self) -> int:
        return len(self.places)


@dataclass
class Findings:
    """Lines about what contradicts the run, and about what could not be looked at."""

    refuted: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


class Here:
    """What is on this machine, looked up once: sources, and identities of models."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], Source | str] = {}
        self._weights: dict[str, str | UserError] = {}

    def source(self, dataset: str, seed: int) -> Source:
        """The samples of a data set in their order. Raises `UserError` where it is not here."""
        key = dataset, seed
        if key not in self._sources:
            try:
                self._sources[key] = make_source(registry.datasets.spec(dataset), seed)
            except UserError as error:
                self._sources[key] = str(error)
        found = self._sources[key]
        if isinstance(found, str):
            raise UserError(f"data not here: {found}")
        return found

    def weights(self, spec: Spec) -> str:
        """The identity of a model's weights. Raises `UserError` where they are not here."""
        if str(spec) not in self._weights:
            try:
                self._weights[str(spec)] = model_identity(spec)
            except UserError as error:
                self._weights[str(spec)] = error
        found = self._weights[str(spec)]
        if isinstance(found, UserError):
            raise UserError(f"weights not here: {found}")
        return found


def claims_of(run: Run, cells: Sequence[Cell], here: Here, findings: Findings) -> list[Claim]:
    """The cells of a run that can be made again; what speaks against the others goes into `findings`, once for each reason."""
    found: list[Claim] = []
    refuted: dict[str, list[str]] = {}
    unchecked: dict[str, list[str]] = {}
    for cell in cells:
        try:
            wrong = list(own_contradictions(cell))
            source = here.source(cell.dataset, cell.seed)
            alien = list(not_here(cell, source, here))
            wrong += [] if alien or wrong else list(does_not_follow(cell, source))
            claim = None if alien else _read(run, cell, source, wrong)
        except UserError as error:
            wrong, alien, claim = list(own_contradictions(cell)), [str(error)], None
        for lines, into in ((wrong, refuted), (alien, unchecked)):
            for line in lines:
                into.setdefault(line, []).append(cell.title)
        if claim is not None and not wrong and claim.rows:
            found.append(claim)
    findings.refuted += [_about(titles, line) for line, titles in refuted.items()]
    findings.unchecked += [_about(titles, line) for line, titles in unchecked.items()]
    return found


def _about(titles: Sequence[str], line: str) -> str:
    return f"{titles[0]}{f' and {len(titles) - 1} more cells' if len(titles) > 1 else ''}: {line}"


def own_contradictions(cell: Cell) -> Iterator[str]:
    """What of a cell contradicts its own identity."""
    if cell.identity.digest() != cell.id:
        yield "its id is not the hash of its identity"
    if prompts_hash(cell.classnames, cell.templates) != cell.identity.prompts:
        yield "its class names and prompts are not those of its identity"
    try:
        if float(parse_radius(cell.eps)) != cell.threat.eps:
            yield f"its radius is {cell.eps} and its threat model's {cell.threat.eps:.6g}"
    except UserError as error:
        yield str(error)


def planned(cell: Cell, source: Source) -> Cell:
    """The cell as it is planned here and now. Raises `UserError` where that cannot be."""
    held = cell.identity
    request = Request((), held.seed, held.precision, held.skip_unreadable)
    model, attack = registry.models.spec(cell.model), registry.attacks.spec(held.attack)
    return make_cell(model, held.weights, source, attack, parse_radius(cell.eps), request, held.surrogate, cell.n)


def not_here(cell: Cell, source: Source, here: Here) -> Iterator[str]:
    """What is here is not what the cell was made with."""
    again: Identity = planned(cell, source).identity
    for name, words in HERE.items():
        was, now = getattr(cell.identity, name), getattr(again, name)
        if was != now:
            yield f"the {words} here is not what the record names (there {str(was)[:40]}, here {str(now)[:40]})"
    if here.weights(registry.models.spec(cell.model)) != cell.identity.weights:
        yield "the weights here are not those that the record names"
    crafted = surrogate_spec(cell)
    if (crafted is None) != (cell.identity.surrogate is None) or (crafted and here.weights(crafted) != cell.identity.surrogate):
        yield "the weights of the surrogate here are not those that the record names"


def surrogate_spec(cell: Cell) -> Spec | None:
    """The model that the cell's attack is crafted on."""
    return surrogate_of(registry.attacks.spec(cell.identity.attack))


def does_not_follow(cell: Cell, source: Source) -> Iterator[str]:
    """What of a cell is not what its own specs make of it."""
    again = planned(cell, source)
    if again.threat != cell.threat:
        yield f"its threat model is not its attack's: {cell.threat} for {again.threat}"
    for name in FOLLOWS:
        if getattr(again, name) != getattr(cell, name):
            yield f"{name} is {str(getattr(cell, name))[:60]} for {str(getattr(again, name))[:60]}"


def _read(run: Run, cell: Cell, source: Source, wrong: list[str]) -> Claim | None:
    """The records of a cell, from the first shard to the first gap, their ids and labels compared with the data set's."""
    columns: dict[str, list[np.ndarray]] = {}
    places: list[int] = []
    whole, start = replace(cell, n=len(source)), 0
    for shard, rows in run.present(cell.id).items():
        if start != shard * SHARD or rows > whole.rows(shard):
            break
        try:
            table = run.read_believed(cell.id, shard, rows)
            skipped = skipped_in(run.shard_path(cell.id, shard, rows))
        except DamagedShard as damage:
            if damage.reason.startswith("contradicts itself"):
                wrong.append(f"shard {shard} {damage.reason}")
                return None
            raise UserError(f"shard {shard} {damage.reason}") from None
        if 0 < len(lacking := set(LOGITS) - set(table.column_names)) < len(LOGITS):
            raise UserError(f"shard {shard} has no {min(lacking)}")
        indices = source.shard(shard, rows)
        gone = [index for index in indices if source.dataset.ids[index] in set(skipped)]
        wrong += _skips(cell, source, shard, skipped, gone)
        part = {name: as_array(table.column(name)) for name in SCALARS if name in table.column_names}
        kept = [at for at, index in enumerate(indices) if index not in set(gone)]
        wrong += _samples(source, [indices[at] for at in kept], part, shard) + _distances(cell, part, shard)
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
        places += [start + at for at in kept][: len(part["id"])]
        start += rows
    if not places:
        raise UserError("no record of it is there")
    return Claim(cell, source, {name: np.concatenate(parts) for name, parts in columns.items()}, np.array(places))


def _skips(cell: Cell, source: Source, shard: int, skipped: Sequence[str], gone: Sequence[int]) -> list[str]:
    if skipped and not cell.identity.skip_unreadable:
        return [f"shard {shard} leaves {len(skipped)} samples out, such as {skipped[0]}, and the run skips none"]
    if len(gone) < len(skipped):
        return [f"shard {shard} leaves out samples that are not its own"]
    broken = {name for name, _ in unreadable(source.dataset, gone)}
    fine = [source.dataset.ids[index] for index in gone if source.dataset.ids[index] not in broken]
    return [f"shard {shard} leaves {fine[0]} out as unreadable, and it can be read"] if fine else []


def _samples(source: Source, indices: Sequence[int], part: dict[str, np.ndarray], shard: int) -> list[str]:
    ids = [source.dataset.ids[index] for index in indices]
    if list(part["id"]) != ids:
        missing = next((name for name in ids if name not in set(part["id"])), None)
        what = f"has no record of {missing}" if missing else "has its samples in another order"
        return [f"shard {shard} {what}, unlike the data set"]
    labels = np.asarray(source.dataset.labels)[list(indices)]
    if labels.ndim == 1:
        wrong = np.flatnonzero(labels != part["label"])
    else:
        given = part.get("labels", [()] * len(ids))
        wrong = np.flatnonzero([list(np.flatnonzero(row)) != list(own) for row, own in zip(labels, given)])
    return [f"shard {shard}: {len(wrong)} labels are not the data set's, such as that of {ids[wrong[0]]}"] if len(wrong) else []


def _distances(cell: Cell, part: dict[str, np.ndarray], shard: int) -> list[str]:
    """Pixel changes beyond the radius, which the judge's projection makes impossible."""
    if cell.threat.norm not in ("linf", "l2"):
        return []
    size = part[cell.threat.norm].astype(np.float64)
    wrong = np.flatnonzero(~((size >= 0) & (size <= cell.threat.eps * (1 + 1e-4) + TOLERANCE)))
    which = f"such as {part['id'][wrong[0]]}, {size[wrong[0]]:.4g}" if len(wrong) else ""
    return [f"shard {shard}: {len(wrong)} images lie beyond the radius {cell.threat.eps:.4g}, {which}"] if len(wrong) else []
