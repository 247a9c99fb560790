"""The temperature that fits labels best (Guo et al. 2017), for whoever can say the mean logit at a temperature.

The negative log-likelihood of softmax(z / T) is convex in 1 / T, and its derivative is mean(E_T[z]) - mean(z_label): it has
one root, or none. The range it is sought in is relative to the spread of the logits, so that T(100 z) = 100 T(z).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

#: Range of temperatures, as multiples of the spread: the mean largest logit above the mean of all.
LOWEST, HIGHEST = 1e-3, 1e4


def best_temperature(expected: Callable[[float], float], label: float, largest: float) -> tuple[float, str | None]:
    """The best temperature; or the end of the range that the likelihood falls to, and why it has no best one.

    Args:
        expected: T -> mean over the samples of the expected logit under softmax(z / T); infinity is asked for too.
        label: mean logit of the labels. largest: mean largest logit.
    """
    spread = largest - expected(math.inf)
    if not math.isfinite(spread + label):
        return math.nan, "its logits give no finite likelihood"
    if spread <= 0:
        return math.nan, "its logits are the same for all classes"
    low, high = LOWEST * spread, HIGHEST * spread
    if expected(math.inf) >= label:
        return high, "the labels are no likelier than chance"
    if largest - label <= 1e-12 * spread:
        return low, "every label has the largest logit: no temperature is low enough"
    if expected(high) >= label or expected(low) <= label:
        end = low if expected(low) <= label else high
        return end, f"the best one is beyond {low:.3g} to {high:.3g}, where this looks"
    root = brentq(lambda log_t: expected(math.exp(log_t)) - label, math.log(low), math.log(high), xtol=1e-10)
    return math.exp(root), None
