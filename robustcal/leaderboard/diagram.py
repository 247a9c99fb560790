"""A reliability diagram as a small inline SVG."""

from __future__ import annotations

import numpy as np

from ..metrics.bins import ReliabilityBins
from .elements import Html, element

SIDE = 150


def diagram(bins: ReliabilityBins, title: str) -> Html:
    """Accuracy of each bin as a bar, its distance to the mean confidence in another colour, and the diagonal."""
    used = np.flatnonzero(bins.counts).tolist()
    bars = "".join(_box(bins, at, 0.0, bins.accuracy[at]) for at in used)
    gaps = "".join(_box(bins, at, bins.accuracy[at], bins.confidence[at]) for at in used)
    about = f"{title}: ECE {100 * bins.error():.1f} %, {bins.total} samples" if bins.total else f"{title}: no samples"
    drawing = element(
        "svg", element("path", class_="bar", d=bars), element("path", class_="gap", d=gaps),
        element("path", class_="line", d=f"M0 {SIDE}L{SIDE} 0"), element("path", class_="frame", d=f"M0 0V{SIDE}H{SIDE}"),
        viewBox=f"-2 -2 {SIDE + 4} {SIDE + 4}", role="img", aria_label=about,
    )  # fmt: skip
    return element("figure", drawing, element("figcaption", about))


def _box(bins: ReliabilityBins, at: int, low: float, high: float) -> str:
    left, right = bins.edges[at] * SIDE + 0.6, bins.edges[at + 1] * SIDE - 0.6
    top, bottom = SIDE * (1 - max(low, high)), SIDE * (1 - min(low, high))
    return f"M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}V{bottom:.1f}Z"
