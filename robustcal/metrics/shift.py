"""How confidence and uncertainty move from the clean image to the attacked one."""

from __future__ import annotations

import numpy as np

from ..registry import register
from ..types import Records, UserError
from .weighted import Means

COLUMNS = ("confidence", "entropy", "au", "log10_eu")
NAMES = [f"{name}_shift" for name in COLUMNS] + [f"{name}_falls" for name in ("entropy", "au", "eu")]


@register.metric(
    direction=dict.fromkeys(NAMES, "none"),
    unit={
        "confidence_shift": "fraction", "entropy_shift": "nats", "au_shift": "nats", "log10_eu_shift": "log10",
        "entropy_falls": "fraction", "au_falls": "fraction", "eu_falls": "fraction",
    },
    columns=("confidence", "entropy", "au", "log_eu", "correct"),
)  # fmt: skip
def shift(records: Records, clean: Records, *, on: str = "all") -> Means:
    """Attacked minus clean, averaged over samples.

    confidence_shift, entropy_shift, au_shift, log10_eu_shift: mean change; negative entropy, au or eu is uncertainty
    that the attack suppressed. entropy_falls, au_falls, eu_falls: share of samples on which it fell.
    `on`: "all" samples, or "flipped", those right when clean and wrong when attacked (nan if there are none).
    """
    if on not in ("all", "flipped"):
        raise UserError(f"shift on '{on}' is unknown; there are: all, flipped")
    before, after = _matrix(clean), _matrix(records)
    moved = np.concatenate([after - before, after[:, 1:] < before[:, 1:]], axis=1)
    if on == "all":
        return Means(moved, lambda means: dict(zip(NAMES, np.moveaxis(means, -1, 0), strict=True)))
    kept = np.asarray(np.asarray(clean["correct"]) & ~np.asarray(records["correct"]), dtype=np.float64)[:, None]

    def combine(means: np.ndarray) -> dict[str, np.ndarray]:
        share = np.where(means[..., -1:] > 1e-12, means[..., -1:], np.nan)
        return dict(zip(NAMES, np.moveaxis(means[..., :-1] / share, -1, 0), strict=True))

    return Means(np.concatenate([moved * kept, kept], axis=1), combine)


def _matrix(records: Records) -> np.ndarray:
    """Columns of `COLUMNS` side by side: (N, 4)."""
    log10_eu = np.asarray(records["log_eu"], np.float64) / np.log(10)
    return np.stack([*(np.asarray(records[name], np.float64) for name in COLUMNS[:-1]), log10_eu], axis=1)
