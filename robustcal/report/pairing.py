"""Which measured cell may stand beside a published number: facts of both by name, and the fields in which they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..cell import Cell
from ..registry import datasets, models, parse_spec
from ..types import Param, Spec, format_param, radius_text
from .labels import written

#: Field -> its value in words, as a cell states it; what it does not know is left out.
Facts = Mapping[str, str]
#: Field -> the values that are the published one; the first is the one that is told.
Accepted = Mapping[str, tuple[str, ...]]

#: Fields by what they belong to; every other one belongs to the attack.
MODEL = ("model", "pre-training", "objective", "fine-tuned on", "inner attack", "training radius")
DATASET = ("data set", "split", "images", "classes", "resolution", "recipe", "prompts", "class names")
#: What a checkpoint of others does not say of its training is not held against it.
MAY_BE_UNKNOWN = ("objective", "fine-tuned on", "inner attack")
UNKNOWN = "not known"
#: Sources that read data with class names and prompts of their own; after their names comes the folder or repository.
PACKS = ("webdataset", "huggingface")
#: Longer prompts are cut where a difference is told: those of some sets are eighty sentences.
TOLD = 160


@dataclass(frozen=True)
class Difference:
    """One field in which a cell is not what was published."""

    field: str
    measured: str
    published: str

    @property
    def of(self) -> str:
        """What it belongs to: "model", "dataset" or "attack"."""
        return "model" if self.field in MODEL else "dataset" if self.field in DATASET else "attack"

    def __str__(self) -> str:
        return f"{self.field} {self._told(self.measured)}, published {self._told(self.published)}"

    def _told(self, text: str) -> str:
        return f"{text[:TOLD]}..." if self.field == "prompts" and len(text) > TOLD else text


def differences(facts: Facts, wanted: Accepted) -> list[Difference]:
    """The fields of `wanted` in which `facts` has another value, or none: empty where the two may stand side by side."""
    found = {field: facts.get(field, UNKNOWN) for field in wanted if field in facts or field not in MAY_BE_UNKNOWN}
    return [Difference(f, value, wanted[f][0]) for f, value in found.items() if value not in wanted[f]]


# -- what a cell is ----------------------------------------------------------------------------------------------------
def facts_of(cell: Cell) -> Facts:
    """All that is compared, of one cell."""
    model, dataset, attack = (parse_spec(text) for text in (cell.model, cell.dataset, cell.attack))
    pack = dataset.name in PACKS and dataset.variant is not None
    card = {"split": "test", "preprocess": "crop"} if pack else datasets.cards().get(dataset.name, {})
    native = "native" if _given(dataset, "resolution") == "native" else None
    training = cell.training or {}
    stated = {
        "model": method_of(model.name),
        "pre-training": pre_training(model, training),
        "objective": training.get("objective"),
        "fine-tuned on": str(training["source_data"]).split(":")[0] if "source_data" in training else None,
        "inner attack": training.get("inner"),
        "training radius": training_radius(model, training),
        "data set": bare(dataset_name(dataset)),
        "split": _given(dataset, "split") or card.get("split"),
        "images": cell.dataset_size,
        "classes": len(cell.classnames),
        "resolution": cell.resolution,
        "recipe": _given(dataset, "preprocess") or native or card.get("preprocess"),
        "prompts": prompt_text(cell.templates),
        "class names": "of the data" if pack else dataset.params.get("prompts", "card"),
        **attack_facts(attack),
        **({"over": over_text(cell.over)} if cell.over else {}),
        "radius": radius_text(cell.eps),
        "return rule": cell.threat.returns,
    }
    return {field: str(value) for field, value in stated.items() if value is not None}


def method_of(model: str) -> str:
    """What a model's name stands for in the literature: the method on its card, else the name itself."""
    return str(models.cards().get(model, {}).get("method", model))


def dataset_name(spec: Spec) -> str:
    """The name of a data set: of its card, or of the folder or repository of a pack."""
    return (spec.variant or spec.name).rstrip("/").rpartition("/")[2] if spec.name in PACKS else spec.name


def training_radius(model: Spec, training: Mapping[str, Any]) -> str | None:
    """The radius that a model was trained at, as its run folder or its card says."""
    card = models.cards().get(model.name, {}) if model.variant is None else {}
    return str(training.get("inner", "")).partition(" within ")[2] or card.get("trained_at")


def over_text(attacks: Iterable[str]) -> str:
    """The attacks that a worst case is over, in words."""
    return " and ".join(sorted({attack.split(" #")[0] for attack in attacks}))


def pre_training(model: Spec, training: Mapping[str, Any]) -> str:
    """Architecture and pre-training as open_clip names them, ``ViT-B-32/openai``: of a fine-tune, those it began with.

    OpenAI's weights are QuickGELU under either name of their architecture.
    """
    card = models.cards().get(model.name, {}) if model.variant is None else {}
    inside = card.get("fingerprint", {}).get("architecture")
    told = training.get("pretraining") or _given(model, "base") or card.get("base") or card.get("variant")
    told = told or (f"the bundled {inside}" if inside else None if training else model.variant) or UNKNOWN
    text = str(told)
    for prefix in ("clip:", "open-clip:"):
        text = text.removeprefix(prefix)
    return text.replace("-quickgelu/openai", "/openai")


def prompt_text(templates: Iterable[str | Iterable[str]]) -> str:
    """Templates in words: those that are averaged joined by ``+``, and classes with their own by ``;``."""
    parts = [part if isinstance(part, str) else " + ".join(part) for part in templates]
    whole = all(isinstance(part, str) for part in templates)
    return '"' + (" + " if whole else "; ").join(parts) + '"'


def attack_facts(attack: Spec) -> dict[str, str]:
    """Name with version, and every parameter. The return rule is told by the threat model."""
    named = ":".join(filter(None, [attack.name, attack.variant]))
    return {"attack": named} | {key: _number(key, value) for key, value in attack.params.items() if key != "return"}


def _number(key: str, value: Param) -> str:
    """A parameter in one way of writing: numbers to nine digits, a step over 255."""
    try:
        number = f"{float(Fraction(format_param(value))):.9g}"
    except ValueError:
        return format_param(value)
    return written(key, float(number)) if key == "step" else number


def bare(name: str) -> str:
    """Letters and digits only, lower case: how names of data sets are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _given(spec: Spec, key: str) -> Param:
    """A parameter of a canonical spec; None for ``none``, which stands for the card's own."""
    value = spec.params.get(key)
    return None if value == "none" else value


# -- what was published ------------------------------------------------------------------------------------------------
def wanted_of(card: Mapping[str, Any], table: int, method: str, attack: str, radius: int, dataset: str) -> Accepted:
    """What a cell must be to stand at one place of a published table.

    Args:
        card: of the comparison (``paper/*.toml``).
        radius: times 255; 0 for clean.
        dataset: one of the card's `sets`.
    """
    stated, named, data = card["tables"][str(table)], card["methods"][method], card["sets"][dataset]
    own, texts = named["objectives"], data["templates"]
    trained = {"objective": own, "fine-tuned on": stated["trained_on"], "inner attack": named.get("inner") or stated["inner"]}
    where = {
        "model": named["names"],
        "pre-training": named.get("pretraining") or stated["pretraining"],
        **(trained if own else {}),
        "training radius": [named["trained_at"]] if "trained_at" in named else None,
        "data set": [bare(name) for name in (dataset, *data["names"])],
        "split": [data["split"]],
        "images": [data["images"]] if "images" in data else None,
        "classes": [data["classes"]],
        "resolution": [data.get("resolution", stated["resolution"])],
        "recipe": [data["preprocess"]],
        "prompts": [prompt_text(card["templates"][texts] if isinstance(texts, str) else texts)],
        "class names": data["sets"],
    }
    how = wanted_attack(card, table, attack_on(card, attack, dataset))
    if radius:
        how |= {"radius": (radius_text(Fraction(radius, 255)),)}
    return {field: tuple(map(str, values)) for field, values in where.items() if values is not None} | how


def wanted_attack(card: Mapping[str, Any], table: int, attack: str) -> dict[str, tuple[str, ...]]:
    """What an attack must be to be the published one, at whatever radius."""
    stated = attack_card(card, table, attack)
    found: dict[str, tuple[str, ...]] = {field: (value,) for field, value in attack_facts(parse_spec(stated["spec"])).items()}
    found |= {"over": (over_text(stated["over"]),)} if "over" in stated else {}
    return found | ({"return rule": (stated["returns"],)} if "returns" in stated else {})


def attack_card(card: Mapping[str, Any], table: int, attack: str) -> Mapping[str, Any]:
    """The card of a published attack: that of the table where it has its own."""
    known: Mapping[str, Mapping[str, Any]] = card["attacks"] | card.get("attacks_of", {}).get(str(table), {})
    return known[attack]


def attack_on(card: Mapping[str, Any], attack: str, dataset: str) -> str:
    """The name of what a published attack was on one data set, where that was another one."""
    return str(card["sets"].get(dataset, {}).get("attacks", {}).get(attack, attack))


def attack_told(card: Mapping[str, Any], table: int, attack: str) -> str:
    """A published attack in words: its spec, or those of a worst case over several."""
    stated = attack_card(card, table, attack)
    return f"the worst case over {over_text(stated['over'])}" if "over" in stated else str(stated["spec"])
