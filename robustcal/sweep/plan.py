"""From lists of spec strings to a list of cells, each with its content hash. Reads no image and no weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        wanted = {name: limits.get(str(registry.datasets.spec(name)), 0) for sweep in self.sweeps for name in sweep.datasets}
        parts = [
            replace(sweep, datasets=(name,), limit=sweep.limit and max(sweep.limit, wanted[name]))
            for sweep in self.sweeps
            for name in sweep.datasets
        ]
        return replace(self, sweeps=tuple(parts))


@dataclass(frozen=True)
class Absence:
    """A model or dataset that a plan had to leave out, and why."""

    axis: str  #: "model" or "dataset"
    spec: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """A sweep: its cells in order, the sources of their samples by dataset, and what could not be planned."""

    cells: tuple[Cell, ...]
    sources: Mapping[str, Source]
    absent: tuple[Absence, ...] = ()

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
    checked = [_check(sweep) for sweep in request.sweeps]
    absent: list[Absence] = []

    def present(axis: str, specs: Iterable[Spec], make: Callable[[Spec], Any]) -> dict[Spec, Any]:
        found = {}
        for spec in dict.fromkeys(specs):
            try:
                found[spec] = make(spec)
            except UserError as error:
                if strict:
                    raise
                absent.append(Absence(axis, str(spec), str(error)))
        return found

    models = list(dict.fromkeys(model for sweep in checked for model in sweep.models))
    crafted = {attack: surrogate_of(attack) for sweep in checked for attack in sweep.attacks}
    weights = present("model", [*models, *filter(None, crafted.values())], identify or model_identity)
    sources = present("dataset", (d for sweep in checked for d in sweep.datasets), lambda d: open_source(d, request.seed))
    trained = {model: model_training(model) for model in models}
    cells: dict[str, Cell] = {}
    for dataset, model, attack, eps, limit in _product(checked):
        surrogate = crafted[attack]
        if dataset in sources and model in weights and (surrogate is None or surrogate in weights):
            other = None if surrogate is None else weights[surrogate]
            cell = make_cell(model, weights[model], sources[dataset], attack, eps, request, other, limit)
            cell = replace(cell, model_place=models.index(model), training=trained[model])
            held = cells.get(cell.id)
            cells[cell.id] = cell if held is None or cell.n > held.n else held
    cells = {name: cell for name, cell in cells.items() if name not in request.without}
    if not cells:
        raise UserError("; ".join(dict.fromkeys(absence.reason for absence in absent)))
    return Plan(tuple(cells.values()), {source.spec: source for source in sources.values()}, tuple(absent))


@dataclass(frozen=True)
class _Axes:
    models: tuple[Spec, ...]
    attacks: tuple[Spec, ...]
    datasets: tuple[Spec, ...]
    eps: tuple[Fraction, ...]
    limit: int | None


def _check(sweep: Sweep) -> _Axes:
    axes: dict[str, tuple[Spec, ...]] = {}
    for family in ("models", "attacks", "datasets"):
        texts: tuple[str, ...] = getattr(sweep, family)
        one = getattr(registry, family).spec
        specs = [spec for text in texts for spec in (attacks_of(text) if family == "attacks" else [one(text)])]
        if not specs:
            raise UserError(f"no {family} given; name some with --{family}, see: robustcal ls {family}")
        axes[family] = tuple(dict.fromkeys(specs))
    if sweep.limit is not None and sweep.limit < 1:
        raise UserError(f"--limit {sweep.limit} leaves no sample; give 1 or more")
    return _Axes(**axes, eps=tuple(sorted({parse_radius(value) for value in sweep.eps})), limit=sweep.limit)


def _product(sweeps: Sequence[_Axes]) -> Iterator[tuple[Spec, Spec, Spec, Fraction, int | None]]:
    """(dataset, model, attack, radius, limit) of every cell of the sweeps."""
    for sweep in sweeps:
        for dataset, model, attack in product(sweep.datasets, sweep.models, sweep.attacks):
            for eps in radii_of(attack, sweep.eps):
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
    try:
        found: Mapping[str, Any] | None = plugin.meta["training"](**arguments) if "training" in plugin.meta else None
    except UserError:  # planned, not here: `identify` has said so
        return None
    return found


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
