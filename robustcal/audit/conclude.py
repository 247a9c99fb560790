"""What follows from a draw for all records: an exact one-sided limit, for a finite population drawn from in stretches."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr
from scipy.stats import beta

CONFIDENCE = 0.95


def at_least(population: int, samples: int, unlike: int, confidence: float = CONFIDENCE) -> float:
    """Lower limit of the fraction of records that come out again, where `unlike` of the `samples` drawn did not.

    The largest number D of bad records that the draw does not refute: under which, however they are spread over the stretches
    that `draw` takes one record from each of, so few bad ones are drawn with probability 1 - confidence or more. D is a whole
    number, no fewer than were seen, and leaves room for the good ones seen.

    Raises:
        ValueError: counts that cannot be.
    """
    if not 0 <= unlike <= samples <= population or not samples:
        raise ValueError(f"{unlike} of {samples} drawn of {population}")
    if samples == population:
        return (population - unlike) / population
    low, high = unlike, population - (samples - unlike)
    longest = -(-population // samples)
    while low < high:
        middle = (low + high + 1) // 2
        likely = tail(samples, unlike, middle / longest) >= 1 - confidence
        low, high = (middle, high) if likely else (low, middle - 1)
    return (population - low) / population


def tail(samples: int, unlike: int, expected: float) -> float:
    """Largest probability of at most `unlike` successes in so many independent trials whose probabilities sum to `expected`.

    It is reached where some of them are 0, some 1 and all others equal (Hoeffding 1956, theorem 4 and its corollary): with
    all of them equal, the binomial, unless `unlike` is near to what is expected.
    """
    best = 0.0
    for sure in range(min(unlike, int(expected)) + 1):
        free = np.arange(1, samples - sure + 1)
        share = (expected - sure) / free
        fits = share <= 1
        if fits.any():
            room = np.minimum(unlike - sure, free[fits])
            best = max(best, float(bdtr(room, free[fits], share[fits]).max()))
    return min(best, 1.0)


def share_limits(hits: int, samples: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided exact limits of a share (Clopper and Pearson 1934)."""
    alpha = 1 - confidence
    low = float(beta.ppf(alpha / 2, hits, samples - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - alpha / 2, hits + 1, samples - hits)) if hits < samples else 1.0
    return low, high
