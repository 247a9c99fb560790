"""How many samples a wanted precision takes: intervals shrink with the root of their number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..cell import SHARD
from ..types import UserError

#: Samples to begin with where no limit is given.
FIRST = 256
#: The largest step from one number of samples to the next: a width seen on few samples is itself uncertain.
GROWTH = 4


def parse_targets(text: str, known: Mapping[str, object]) -> dict[str, float]:
    """``ece=0.02,accuracy=0.03`` -> the half-width of the 95 % interval wanted of each metric.

    Raises:
        UserError: malformed, an unknown metric, or a width that is not between 0 and 1.
    """
    targets: dict[str, float] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = piece.partition("=")
        if name not in known:
            raise UserError(f"--until '{piece}': no metric '{name}' with an interval; there are: {', '.join(known)}")
        try:
            targets[name] = float(value)
        except ValueError:
            targets[name] = math.nan
        if not 0 < targets[name] < 1:
            raise UserError(f"--until '{piece}' is not METRIC=HALF-WIDTH with a half-width between 0 and 1, like accuracy=0.02")
    if not targets:
        raise UserError("--until is empty; give METRIC=HALF-WIDTH, like accuracy=0.02")
    return targets


def samples_needed(n: int, width: float, target: float) -> int:
    """Samples at which a half-width `width` seen on `n` samples shrinks to `target`: whole shards, at most `GROWTH` times n."""
    if not width > target:
        return n
    wanted = n * min(GROWTH, (width / target) ** 2 * 1.05)
    return max(n + 1, math.ceil(wanted / SHARD) * SHARD)
