"""From lists of spec strings to a list of cells, each with its content hash. Reads no image and no weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any

from .. import registry
from ..cell import Cell, Identity
from ..registry.specs import split_list
from ..types import Spec, UserError, parse_radius
from .declared import attack_meta, attacks_of, radii_of, surrogate_of, threat_of
from .samples import Source, make_source


@dataclass(frozen=True)
class Sweep:
    """A full product of spec strings. `limit`: samples per dataset; None is all of them."""

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    datasets: tuple[str, ...]
    eps: tuple[str, ...] = ("1/255",)
    limit: int | None = None

    @classmethod
    def of(
        cls, models: Iterable[str] | str = (), attacks: Iterable[str] | str = (), datasets: Iterable[str] | str = (),
        eps: Iterable[Any] | str = (), limit: int | None = None,
    ) -> Sweep:  # fmt: skip
        """A sweep from what a user wrote: lists take spaces or commas."""
        return cls(split_list(models), split_list(attacks), split_list(datasets), split_list(eps) or ("1/255",), limit)


@dataclass(frozen=True)
class Request:
    """What a plan is made from; enough to make it again in another process."""

    sweeps: tuple[Sweep, ...]
    seed: int = 0
    precision: str = "fp32"
    skip_unreadable: bool = False
    plugins: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)  #: axis -> canonical spec -> what reports call it
    without: tuple[str, ...] = ()  #: ids of cells that are known not to work here

    def limited(self, limits: Mapping[str, int]) -> Request:
        """The same with at least so many samples of the datasets named (by canonical spec)."""
        parts = []
        for sweep in self.sweeps:
            for name in sweep.datasets:
                least = limits.get(str(registry.datasets.spec(name)), 0)
                parts.append(replace(sweep, datasets=(name,), limit=sweep.limit and max(sweep.limit, least)))
        return replace(self, sweeps=tuple(parts))


@dataclass(frozen=True)
class Failure:
    """Something that was asked for and could not be done: what, why, and how many cells it cost."""

    what: str
    reason: str
    cells: int = 0

    def __str__(self) -> str:
        return self.reason if self.what in self.reason else f"{self.what}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """A sweep: its cells in order, the sources of their samples by dataset, and what cannot be done of it."""

    cells: tuple[Cell, ...]
    sources: Mapping[str, Source]
    absent: tuple[Failure, ...] = ()  #: models and datasets that are not here: their cells are not among these
    refused: Mapping[str, str] = field(default_factory=dict)  #: id of a cell that is known not to work -> why

    def accepted(self) -> Plan:
        """The plan without the cells that are known not to work."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell.id not in self.refused))

    @property
    def samples(self) -> int:
        return sum(cell.n for cell in self.cells)

    @property
    def shards(self) -> int:
        return sum(cell.shards for cell in self.cells)

    def distinct(self, axis: str) -> list[str]:
        """The models, datasets or attacks of the plan, in order."""
        return list(dict.fromkeys(getattr(cell, axis) for cell in self.cells))


def make_plan(
    request: Request, *, strict: bool = True, open_source: Callable[[Spec, int], Source] = make_source,
    identify: Callable[[Spec], str] | None = None,
) -> Plan:  # fmt: skip
    """Expand sweeps into cells. Equal cells are planned once, at the larger of their numbers of samples.

    Args:
        strict: refuse a model or dataset that is not here; else leave it out, as long as something remains.
        open_source, identify: stand-ins for `make_source` and `model_identity`, to plan what is not on this machine.

    Raises:
        UserError: unknown names, malformed specs or radii, empty lists: before any dataset is opened. Datasets without
            samples; and, where `strict` or nothing remains, what is not here.
    """
    asked = [cell for sweep in request.sweeps for cell in _asked(sweep)]
    absent: list[Failure] = []

    def present(axis: str, specs: Iterable[Spec], make: Callable[[Spec], Any]) -> dict[Spec, Any]:
        found = {}
        for spec in dict.fromkeys(specs):
            try:
                found[spec] = make(spec)
            except UserError as error:
                if strict:
                    raise
                absent.append(Failure(f"{axis} '{spec}'", str(error)))
        return found

    models = list(dict.fromkeys(model for _, model, *_ in asked))
    crafted = {attack: surrogate_of(attack) for attack in dict.fromkeys(attack for _, _, attack, *_ in asked)}
    weights = present("model", [*models, *filter(None, crafted.values())], identify or model_identity)
    sources = present("dataset", (dataset for dataset, *_ in asked), lambda spec: open_source(spec, request.seed))
    trained = {model: model_training(model) for model in models}
    cells: dict[str, Cell] = {}
    for dataset, model, attack, eps, limit in asked:
        surrogate = crafted[attack]
        if dataset in sources and model in weights and (surrogate is None or surrogate in weights):
            other = None if surrogate is None else weights[surrogate]
            cell = make_cell(model, weights[model], sources[dataset], attack, eps, request, other, limit)
            cell = replace(cell, model_place=models.index(model), training=trained[model])
            held = cells.get(cell.id)
            cells[cell.id] = cell if held is None or cell.n > held.n else held
    cells = {name: cell for name, cell in cells.items() if name not in request.without}
    if not cells:
        raise UserError("; ".join(dict.fromkeys(failure.reason for failure in absent)))
    return Plan(tuple(cells.values()), {source.spec: source for source in sources.values()}, tuple(absent))


def _asked(sweep: Sweep) -> Iterator[tuple[Spec, Spec, Spec, Fraction, int | None]]:
    """(dataset, model, attack, radius, limit) of every cell of a sweep; all of it is checked before the first."""
    axes = {
        "models": [registry.models.spec(text) for text in sweep.models],
        "attacks": [spec for text in sweep.attacks for spec in attacks_of(text)],
        "datasets": [registry.datasets.spec(text) for text in sweep.datasets],
    }
    for family, specs in axes.items():
        if not specs:
            raise UserError(f"no {family} given; name some with --{family}, see: robustcal ls {family}")
    if sweep.limit is not None and sweep.limit < 1:
        raise UserError(f"--limit {sweep.limit} leaves no sample; give 1 or more")
    radii = sorted({parse_radius(value) for value in sweep.eps})
    for dataset, model, attack in product(*(dict.fromkeys(axes[family]) for family in ("datasets", "models", "attacks"))):
        for eps in radii_of(attack, radii):
            yield dataset, model, attack, eps, sweep.limit


def model_identity(spec: Spec) -> str:
    """What identifies a model's weights, without loading them: the plugin's own `identity`, or its spec."""
    plugin, arguments = registry.models.arguments(spec)
    identity = plugin.meta.get("identity")
    text = identity(**arguments) if identity else str(spec)
    return f"{text}+{plugin.source_sha256}" if plugin.source_sha256 else str(text)


def model_training(spec: Spec) -> Mapping[str, Any] | None:
    """How a model was trained, its seed among it, as its plugin's `training` says; None where nothing is known.

    No part of a cell's identity: the hash of the weights says more. It tells which models differ in their seed alone.
    """
    plugin, arguments = registry.models.arguments(spec)
    training: Callable[..., Mapping[str, Any] | None] = plugin.meta.get("training", lambda **_: None)
    with suppress(UserError):  # planned, not here: `identify` has said so
        return training(**arguments)
    return None


def make_cell(
    model: Spec, weights: str, source: Source, attack: Spec, eps: Fraction, request: Request, surrogate: str | None = None,
    limit: int | None = None,
) -> Cell:  # fmt: skip
    """One cell, of the first `limit` samples of its source.

    Args:
        weights, surrogate: identities of the model, and of the one that a transfer attack is crafted on.
    """
    plugin, arguments = registry.attacks.arguments(attack)
    meta = attack_meta(plugin, arguments)
    dataset = source.dataset
    identity = Identity(
        model=str(model),
        weights=weights,
        dataset=source.spec,
        data=source.identity,
        prompts=source.prompts,
        order=source.order_hash,
        attack=str(attack),
        attack_version=int(meta.get("version", 1)),
        attack_file=plugin.source_sha256,
        surrogate=surrogate,
        eps=str(eps),
        threat=threat_of(plugin, arguments, eps, dataset.resolution),
        precision=request.precision,
        seed=request.seed,
        skip_unreadable=request.skip_unreadable,
    )
    return Cell(
        id=identity.digest(),
        identity=identity,
        n=len(source) if limit is None else min(limit, len(source)),
        dataset_size=len(source),
        classnames=tuple(dataset.classnames),
        templates=tuple(t if isinstance(t, str) else tuple(t) for t in dataset.templates),
        task=dataset.task,
        resolution=dataset.resolution,
        kind=str(meta.get("kind", "white-box")),
        accuracy_only=bool(meta.get("accuracy_only", False)),
        keeps_label=bool(meta.get("keeps_label", False)),
        min_classes=int(meta.get("min_classes", 2)),
    )
