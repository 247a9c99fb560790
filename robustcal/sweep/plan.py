"""From lists of spec strings to a list of cells, each with its content hash. Reads no image and no weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from .. import registry
from ..types import Spec, Threat, UserError, parse_radius
from .samples import SHARD, Source, balanced_subset, make_source

__all__ = ["SHARD", "Plan", "Source", "balanced_subset", "make_plan", "make_source"]

#: Bumped when the meaning of a record changes; part of every cell's identity.
RECORD_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """A sweep: `cells` are plain dictionaries, as they are stored in ``cell.json``; `sources` by cell id."""

    cells: list[dict[str, Any]]
    sources: dict[str, Source]

    @property
    def samples(self) -> int:
        return sum(cell["n"] for cell in self.cells)


def split_list(values: Iterable[str] | str | None) -> list[str]:
    """``["a,b", "c"]`` -> ``["a", "b", "c"]``: lists take spaces or commas. Order kept, repeats dropped."""
    values = [values] if isinstance(values, str) else (values or [])
    return list(dict.fromkeys(piece.strip() for value in values for piece in str(value).split(",") if piece.strip()))


def make_plan(
    sweeps: Sequence[Mapping[str, Any]], *, seed: int = 0, precision: str = "fp32", skip_unreadable: bool = False,
    open_source: Callable[[Spec, int | None, int], Source] | None = None, identify: Callable[[Spec], str] | None = None,
) -> Plan:  # fmt: skip
    """Expand sweeps (each: models, attacks, datasets, eps, limit) into cells. Equal cells are planned once.

    Args:
        skip_unreadable: leave out images that do not decode, instead of leaving their cells unfinished.
        open_source, identify: stand-ins for `make_source` and `model_identity`, to plan what is not on this machine.

    Raises:
        UserError: unknown names, malformed specs or radii, empty lists, data sets without samples.
    """
    checked = [_check(sweep) for sweep in sweeps]  # every spelling mistake is found before any dataset is opened
    everything = list(dict.fromkeys(model for sweep in checked for model in sweep["models"]))
    weights = {model: (identify or model_identity)(model) for model in everything}
    trained = {model: model_training(model) for model in everything}
    open_source = open_source or make_source
    opened: dict[tuple[Spec, int | None], Source] = {}
    cells: dict[str, dict[str, Any]] = {}
    sources: dict[str, Source] = {}
    for sweep in checked:
        for dataset in sweep["datasets"]:
            key = (dataset, sweep["limit"])
            source = opened[key] = opened.get(key) or open_source(dataset, sweep["limit"], seed)
            for model, attack in product(sweep["models"], sweep["attacks"]):
                for eps in radii_of(attack, sweep["eps"]):
                    cell = make_cell(model, weights[model], source, attack, eps, precision, seed, skip_unreadable)
                    cell["order"].insert(0, everything.index(model))
                    if trained[model]:
                        cell["training"] = trained[model]
                    cells.setdefault(cell["id"], cell)
                    sources.setdefault(cell["id"], source)
    return Plan(list(cells.values()), sources)


def _check(sweep: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for family in ("models", "attacks", "datasets"):
        specs = [getattr(registry, family).spec(text) for text in split_list(sweep.get(family))]
        if not specs:
            raise UserError(f"no {family} given; name some with --{family}, see: robustcal ls {family}")
        checked[family] = list(dict.fromkeys(specs))
    checked["eps"] = sorted({parse_radius(value) for value in split_list(sweep.get("eps")) or ["1/255"]})
    limit = sweep.get("limit")
    if limit is not None and int(limit) < 1:
        raise UserError(f"--limit {limit} leaves no sample; give 1 or more")
    checked["limit"] = None if limit is None else int(limit)
    return checked


def radii_of(attack: Spec, radii: Sequence[Fraction]) -> list[Fraction]:
    """The radii to run an attack at: an attack that has none (clean) is planned once, at 0."""
    uses_eps = attack_meta(*registry.attacks.arguments(attack)).get("uses_eps", True)
    return list(radii) if uses_eps else [Fraction(0)]


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
        return plugin.meta["training"](**arguments) if "training" in plugin.meta else None
    except UserError:  # planned, not here: `identify` has said so
        return None


def make_cell(
    model: Spec, model_id: str, source: Source, attack: Spec, eps: Fraction, precision: str, seed: int,
    skip_unreadable: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One cell as a plain dictionary. Its id hashes exactly what can change a record, and nothing else.

    Left out on purpose: batch size, device, number of workers, engine, output folder, versions of other packages
    (they stand in run.json), and whether the run was resumed.
    """
    plugin, arguments = registry.attacks.arguments(attack)
    meta = attack_meta(plugin, arguments)
    threat = threat_of(plugin, arguments, eps, source.dataset.resolution)
    dataset = source.dataset
    identity = {
        "record_version": RECORD_VERSION,
        "model": str(model),
        "weights": model_id,
        "dataset": source.spec,
        "data": source.identity,
        "prompts": source.prompts,
        "samples": source.samples,
        "attack": str(attack),
        "attack_version": meta.get("version", 1),
        "attack_file": plugin.source_sha256,
        "surrogate": _surrogate_identity(plugin, arguments),
        "eps": str(eps),
        "threat": [threat.norm, threat.low, threat.high, threat.resolution, threat.goal, threat.returns],
        "precision": precision,
        "seed": seed,
        **({"skip_unreadable": True} if skip_unreadable else {}),
    }
    return {
        "id": cell_id(identity),
        "order": [source.spec, _ATTACK_ORDER.get(meta.get("kind", ""), 2), str(attack), float(eps)],
        "model": str(model),
        "dataset": source.spec,
        "attack": str(attack),
        "eps": str(eps),
        "threat": {**threat.__dict__},
        "precision": precision,
        "seed": seed,
        "n": len(source.indices),
        "shards": source.shards,
        "shard_size": SHARD,
        "dataset_size": len(dataset.ids),
        "classnames": list(dataset.classnames),
        "templates": list(dataset.templates),
        "task": dataset.task,
        "resolution": dataset.resolution,
        "skip_unreadable": skip_unreadable,
        "attack_meta": {
            "kind": meta.get("kind", "white-box"),
            "accuracy_only": bool(meta.get("accuracy_only", False)),
            "min_classes": int(meta.get("min_classes", 2)),
            "returns": threat.returns,
            "goal": threat.goal,
            "keeps_label": bool(meta.get("keeps_label", False)),
        },
        "identity": identity,
    }


#: What an attack may declare, and the words for it where only some are understood.
ATTACK_META: dict[str, tuple[str, ...]] = {
    "kind": ("clean", "control", "white-box", "black-box", "transfer"),
    "returns": ("last", "best", "success-else-clean"),
    "norm": ("linf", "l2", "composite", "l0", "l1"),
    "goal": ("untargeted", "targeted", "confidence-up", "confidence-down", "miscalibration", "random-confidence"),
    **dict.fromkeys(
        ("accuracy_only", "keeps_label", "uses_eps", "min_classes", "version", "meta_of", "surrogate", "batch_dependent"), ()
    ),
}


def attack_meta(plugin: registry.Plugin, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What an attack declares for this spec: its metadata, its `norm` and `return` parameters, then its `meta_of`.

    `meta_of` is a function of the arguments, for what depends on the spec in another way (an adapter's variant).
    """
    names = (("norm", "norm"), ("returns", "return_"))
    own = {key: arguments[name] for key, name in names if arguments.get(name) is not None}
    meta = {**plugin.meta, **own, **plugin.meta.get("meta_of", lambda arguments: {})(arguments)}
    for key, value in meta.items():
        if key not in ATTACK_META:
            raise UserError(f"attack '{plugin.name}' declares '{key}', which means nothing; there are: {', '.join(ATTACK_META)}")
        if ATTACK_META[key] and value not in ATTACK_META[key]:
            raise UserError(f"attack '{plugin.name}' declares {key}={value!r}; there are: {', '.join(ATTACK_META[key])}")
    return meta


def threat_of(plugin: registry.Plugin, arguments: Mapping[str, Any], eps: Fraction, resolution: int | None) -> Threat:
    """The threat model an attack declares: norm, goal and return rule."""
    meta = attack_meta(plugin, arguments)
    if meta.get("uses_eps", True) and meta.get("norm") in ("l0", "l1"):
        raise UserError(f"attack '{plugin.name}' has the norm {meta['norm']}, whose ball is not verified; there are: linf, l2")
    if meta.get("norm", "linf") == "linf" and eps > 1:
        raise UserError(f"eps '{eps}' is larger than the whole pixel range [0, 1]; for 8-bit units write {eps}/255")
    return Threat(
        eps=float(eps),
        norm=meta.get("norm", "linf"),
        resolution=resolution,
        goal=meta.get("goal", "untargeted"),
        returns=meta.get("returns", "last"),
    )


#: Clean first, controls second, attacks after them.
_ATTACK_ORDER = {"clean": 0, "control": 1}


def _surrogate_identity(plugin: registry.Plugin, arguments: Mapping[str, Any]) -> str | None:
    key = plugin.meta.get("surrogate")
    if key is None:
        return None
    value = arguments.get(key, arguments.get(key + "_"))
    return model_identity(registry.models.spec(str(value)))


def cell_id(identity: Mapping[str, Any]) -> str:
    """The documented content hash: sha256 of the identity as sorted, compact JSON; first 16 hex digits."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
