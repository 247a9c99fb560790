"""The nouns of a sweep: what one cell is and what identifies it, and the one way of all nouns to and from JSON."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from .types import Threat, radius_text

#: Samples per shard: what is claimed, written and lost at once.
SHARD = 128
#: Bumped when the meaning of a record changes; part of every cell's identity.
RECORD_VERSION = 2

Noun = TypeVar("Noun")


@dataclass(frozen=True)
class Identity:
    """Exactly what can change a record, and nothing else. How many samples were taken is no part of it.

    Left out on purpose: batch size, device, number of workers, engine, output folder, versions of other packages (they
    stand in run.json), and whether the run was resumed or extended.
    """

    model: str  #: canonical spec
    weights: str  #: what identifies the weights: a hash of their bytes once they are here
    dataset: str  #: canonical spec
    data: str  #: what identifies its content
    prompts: str  #: hash of class names and templates
    order: str  #: hash of the sample ids in the order in which they are taken
    attack: str  #: canonical spec
    attack_version: int
    attack_file: str | None  #: sha256 of a file of the user's own
    surrogate: str | None  #: identity of the model a transfer attack is crafted on
    eps: str
    threat: Threat
    precision: str
    seed: int
    skip_unreadable: bool = False
    record_version: int = RECORD_VERSION

    def digest(self) -> str:
        """The documented content hash: sha256 of the identity as sorted, compact JSON; first 16 hex digits."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One (model, dataset, attack, radius) of a sweep: its identity, and what else a report must know of it.

    It holds the first `n` samples of its data set's order, in shards of `SHARD`: it can grow.
    """

    id: str  #: `Identity.digest`; of a worst case, a hash of its members' ids
    identity: Identity
    n: int  #: samples asked for so far
    dataset_size: int  #: samples there are
    classnames: tuple[str, ...]
    templates: tuple[Any, ...]  #: texts with {}; or, for prompts per class, one list of texts for each class
    task: str  #: "single", "multi" or "ood" (no class is right)
    resolution: int
    kind: str  #: clean | control | shift | white-box | black-box | transfer | worst
    accuracy_only: bool = False
    keeps_label: bool = False
    min_classes: int = 2
    model_place: int = 0  #: place of the model among those of the sweep
    training: Mapping[str, Any] | None = None  #: how the model was trained, as its card or run folder says
    members: tuple[str, ...] = ()  #: of a worst case: the cells it was taken over
    over: tuple[str, ...] = ()  #: and their attacks
    skipped: int = 0  #: of the `n`, samples without a row because their image could not be read; known once read

    @property
    def model(self) -> str:
        return self.identity.model

    @property
    def dataset(self) -> str:
        return self.identity.dataset

    @property
    def attack(self) -> str:
        return "worst" if self.kind == "worst" else self.identity.attack

    @property
    def eps(self) -> str:
        return self.identity.eps

    @property
    def threat(self) -> Threat:
        return self.identity.threat

    @property
    def precision(self) -> str:
        return self.identity.precision

    @property
    def seed(self) -> int:
        return self.identity.seed

    @property
    def shards(self) -> int:
        return -(-self.n // SHARD)

    def rows(self, shard: int) -> int:
        """How many samples a shard covers: `SHARD`, or what is left of `n` for the last one."""
        return max(0, min(SHARD, self.n - shard * SHARD))

    @property
    def title(self) -> str:
        """The cell in words, for a line that tells about it."""
        return f"{self.model} x {self.dataset} x {self.attack}" + ("" if self.kind == "clean" else f" {radius_text(self.eps)}")

    @property
    def place(self) -> tuple[int, str, int, str, float]:
        """Where the cell stands among others: by model, dataset, attack (clean first, controls, shifts) and radius."""
        kinds = {"clean": 0, "control": 1, "shift": 2}
        return (self.model_place, self.dataset, kinds.get(self.kind, 3), self.attack, self.threat.eps)


def to_json(noun: Any) -> dict[str, Any]:
    """A noun as plain data for `json.dumps`; `from_json` is the way back."""
    return asdict(noun)


def from_json(kind: type[Noun], data: object) -> Noun:
    """A noun from what `to_json` made of it. Raises `ValueError`: a field is missing, unknown, or of another type."""
    if not isinstance(data, dict):
        raise ValueError(f"a {kind.__name__} is an object, not {type(data).__name__}")
    hints = _hints(kind)  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(f"a {kind.__name__} has no {unknown[0]}")
    try:
        return kind(**{name: _value(hints[name], name, value) for name, value in data.items()})
    except TypeError as error:
        raise ValueError(str(error)) from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(hint: Any, name: str, value: Any) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is a list, not {value!r}")
        kind = typing.get_args(hint)[0]
        items = (from_json(kind, item) if isinstance(kind, type) and is_dataclass(kind) else item for item in value)
        return tuple(tuple(item) if isinstance(item, list) else item for item in items)
    allowed = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    plain = tuple(typing.get_origin(part) or part for part in allowed)
    if (isinstance(value, bool) and bool not in plain) or not isinstance(value, (*plain, int) if float in plain else plain):
        raise ValueError(f"{name} is not {value!r}")
    return value
