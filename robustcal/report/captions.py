"""Captions that state their own protocol: radius, resolution, attack, return rule, precision, n, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cell import Cell
from ..registry import parse_spec
from ..types import UserError, radius_text
from .labels import sentence, written

NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}
RETURNS = {
    "last": "the last iterate is scored",
    "best": "the highest-loss iterate is scored",
    "success-else-clean": "the clean image is scored where the attack failed (accuracy only)",
    "nearest-else-clean": "the nearest misclassified image found is scored, the clean one where there is none (accuracy only)",
    "success-else-last": "the first misclassified iterate is scored, the last where the attack failed (accuracy only)",
}
GOALS = {
    "untargeted": "untargeted", "targeted": "targeted", "confidence-up": "confidence-raising",
    "confidence-down": "confidence-lowering", "miscalibration": "miscalibrating",
    "random-confidence": "confidence-randomising", "calibration-gap": "calibration-gap-widening",
    "look-known": "confidence-raising (any class)", "look-unknown": "confidence-lowering (any class)",
}  # fmt: skip


def protocol(cells: Sequence[Cell], versions: Mapping[str, str] | None = None) -> str:
    """One paragraph that says how the numbers of these cells were made. Fields that differ are listed."""
    attacked = [cell for cell in cells if cell.kind not in ("clean", "shift") and cell.attack != "worst"]
    shifted = _unique(spelled(str(cell.attack)) for cell in cells if cell.kind == "shift")
    parts = [attack_words(attacked)] if attacked else []
    parts += [f"shifts that no adversary chose: {sentence(shifted)}"] if shifted else []
    parts += [f"images of {_range([c.resolution for c in cells])} pixels a side, values in [0, 1]"]
    parts += [f"scored in fp32, attacks in {sentence(_unique(c.precision for c in attacked or cells), 'or')}"]
    parts += [f"n = {_range([c.n for c in cells])} samples a data set"]
    parts += [_seeds(cells)]
    text = "; ".join(parts) + "."
    if any(cell.kind == "worst" and cell.identity.attack == "worst" for cell in cells):
        text += " worst: per sample, the attack of the same radius that does most harm."
    if any(cell.kind == "worst" and cell.identity.attack == "worst-calibration" for cell in cells):
        text += (
            " worst-calibration: per sample, the attack with the widest gap between confidence and correctness; the mean gap"
            " bounds the binned ECE from above."
        )
    made_by = (versions or {}).get("robustcal")
    return text[0].upper() + text[1:] + (f" robustcal {made_by}." if made_by else "")


def attack_words(cells: Sequence[Cell]) -> str:
    """Threat model and attacks of attacked cells, in words."""
    threats = _unique(NORMS.get(c.threat.norm, c.threat.norm) for c in cells)
    radii = _unique(radius_text(c.eps) for c in sorted(cells, key=lambda c: c.threat.eps))
    goals = _unique(GOALS.get(c.threat.goal, c.threat.goal) for c in cells)
    returns = _unique(c.threat.returns for c in cells)
    rule = sentence((RETURNS.get(r, f"return rule {r}") for r in returns), "or")
    specs = sentence(_unique(spelled(str(c.attack)) for c in cells))
    return f"{sentence(goals, 'or')} {sentence(threats, 'or')} attacks of radius {sentence(radii)}: {specs}; {rule}"


def spelled(attack: str) -> str:
    """An attack with its parameters; norm and return rule are told in words and unset ones left out."""
    try:
        spec = parse_spec(attack.split(" #")[0])
    except UserError:
        return attack
    told = {key: written(key, v) for key, v in spec.params.items() if key not in ("norm", "return")}
    given = [f"{key}={text}" for key, text in told.items() if text != "none"]
    return ":".join(filter(None, [spec.name, spec.variant])) + (f" ({', '.join(given)})" if given else "")


def marks_note(interval: bool) -> str:
    """What bold, underline and brackets mean."""
    bracket = (
        " Brackets: 95 % interval over samples; ECE is biased upward, so its interval lies lower." if interval else ""
    )
    return (
        "Bold: best; †: better than every other row of its block at the 5 % level (paired test over the same samples,"
        f" Holm-corrected within the column); underlined: second best.{bracket}"
    )


#: `marks_note` for short captions.
SHORT_MARKS = "Bold: best, †: significantly so; underlined: second best."


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _seeds(cells: Sequence[Cell]) -> str:
    seeds = sorted({int(c.seed) for c in cells})
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
