"""What an attack declares about itself: its kind, norm, goal and return rule, and with them its threat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from .. import registry
from ..registry.specs import parse_spec, split_list
from ..types import Spec, Threat, UserError

#: What an attack may declare, and the words for it where only some are understood.
ATTACK_META: dict[str, tuple[str, ...]] = {
    "kind": ("clean", "control", "shift", "white-box", "black-box", "transfer"),
    "returns": ("last", "best", "success-else-clean", "success-else-last", "nearest-else-clean"),
    "norm": ("linf", "l2", "composite", "l0", "l1", "none"),
    "goal": (
        "untargeted", "targeted", "confidence-up", "confidence-down", "miscalibration", "random-confidence", "calibration-gap",
        "look-known", "look-unknown",
    ),
    **dict.fromkeys(
        (
            "accuracy_only", "keeps_label", "uses_eps", "min_classes", "version", "meta_of", "stands_for", "surrogate",
            "batch_dependent",
        ), (),
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
            said = f"has no {dict(names)[key].rstrip('_')} '{value}'" if key in own else f"declares {key}={value!r}"
            raise UserError(f"attack '{plugin.name}' {said}; there are: {', '.join(ATTACK_META[key])}")
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


def radii_of(attack: Spec, radii: Sequence[Fraction]) -> list[Fraction]:
    """The radii to run an attack at: an attack that has none (clean) is planned once, at 0."""
    uses_eps = attack_meta(*registry.attacks.arguments(attack)).get("uses_eps", True)
    return list(radii) if uses_eps else [Fraction(0)]


def attacks_of(text: str) -> list[Spec]:
    """The complete specs that one text asks for: itself, or those it stands for (``corruption:all``).

    An attack says so with `stands_for`: a function of the spec as it was written, None where it means itself.
    """
    spec = registry.attacks.spec(text)
    stands_for = registry.attacks.arguments(spec)[0].meta.get("stands_for", lambda given: None)
    return [registry.attacks.spec(one) for one in stands_for(parse_spec(text)) or [text]]


def uses_radius(attacks: Sequence[str]) -> bool:
    """Whether any of these attacks has a radius."""
    return any(radii_of(spec, [Fraction(1)]) == [1] for text in split_list(attacks) for spec in attacks_of(text))


def named_surrogate(plugin: registry.Plugin, arguments: Mapping[str, Any]) -> str | None:
    """The text that names the model which a transfer attack is crafted on; None for other attacks."""
    key = plugin.meta.get("surrogate")
    return None if key is None else str(arguments.get(key, arguments.get(key + "_")))


def surrogate_of(attack: Spec) -> Spec | None:
    """The spec of `named_surrogate`."""
    named = named_surrogate(*registry.attacks.arguments(attack))
    return None if named is None else registry.models.spec(named)
