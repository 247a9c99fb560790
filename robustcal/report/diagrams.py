"""Reliability diagrams, and histograms of confidence and entropy before and after attack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from ..metrics.bins import ReliabilityBins, binomial_limits
from .lettering import height_of, wrapped
from .style import BAR, GAP, GAP_FILL, INK, SOFT, label_percent

#: Diagrams in a row; more than these are broken into rows of the same length.
ACROSS = 5


def pool(several: Sequence[ReliabilityBins]) -> ReliabilityBins:
    """The bins of all samples together, for groups with the same edges.

    Raises:
        ValueError: the edges differ.
    """
    first = several[0]
    if any(not np.array_equal(first.edges, other.edges) for other in several):
        raise ValueError("bins with different edges cannot be pooled")
    if len(several) == 1:
        return first
    counts = np.sum([b.counts for b in several], axis=0)
    hits = np.sum([np.nan_to_num(b.accuracy) * b.counts for b in several], axis=0)
    trust = np.sum([np.nan_to_num(b.confidence) * b.counts for b in several], axis=0)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = trust / counts, hits / counts
    return ReliabilityBins(
        first.edges, counts, confidence, accuracy, *binomial_limits(np.rint(hits), counts), first.level
    )


def reliability(axes: Axes, bins: ReliabilityBins, title: str = "", note: str | None = None) -> None:
    """One reliability diagram: accuracy bars with exact intervals, the hatched gap to the mean confidence, the ECE.

    Args:
        note: text under the title; the ECE of these very bins by default.
    """
    used = np.flatnonzero(bins.counts)
    low, high = bins.edges[used], bins.edges[used + 1]
    inset = 0.06 * (high - low)
    left, right, middle = low + inset, high - inset, (low + high) / 2
    accuracy, confidence = bins.accuracy[used], bins.confidence[used]
    axes.add_collection(PolyCollection(_boxes(left, right, 0 * accuracy, accuracy), facecolor=BAR, edgecolor="none"))
    gaps = _boxes(left, right, np.minimum(accuracy, confidence), np.maximum(accuracy, confidence))
    axes.add_collection(
        PolyCollection(gaps, facecolor=GAP_FILL, edgecolor=GAP, linewidth=0.5, hatch="/////", alpha=0.85)
    )
    bounds = [[(x, a), (x, b)] for x, a, b in zip(middle, bins.lower[used], bins.upper[used])]
    axes.add_collection(LineCollection(bounds, colors=INK, linewidths=0.8, zorder=6))
    axes.plot(
        np.r_[middle, middle],
        np.r_[bins.lower[used], bins.upper[used]],
        "_",
        color=INK,
        markersize=3.5,
        markeredgewidth=0.8,
        zorder=6,
    )
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
    text = f"ECE {100 * bins.error():.1f} %" if note is None else note
    axes.set_title(f"{title}\n{text}" if title else text, fontsize=8)  # above the panel: inside, it would lie on something
    label_percent(axes, x=True)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def counts(axes: Axes, bins: ReliabilityBins) -> None:
    """The share of samples in each bin, under a reliability diagram."""
    share = np.nan_to_num(bins.share)
    width = np.diff(bins.edges)
    boxes = _boxes(bins.edges[:-1] + 0.06 * width, bins.edges[1:] - 0.06 * width, 0 * share, share)
    axes.add_collection(PolyCollection(boxes, facecolor=SOFT, edgecolor="none"))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(share.max(initial=0), 1e-9) * 1.08)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    label_percent(axes, x=True, y=True, limit=False)
    axes.yaxis.set_major_locator(_two_ticks(share.max(initial=0)))
    axes.set_xlabel(f"confidence %   (n = {bins.total})", labelpad=2)


def reliability_row(parts: Sequence[tuple[str, ReliabilityBins, str | None]], title: str = "") -> Figure:
    """Diagrams side by side, such as clean and each radius, with the counts below: (title, bins, note) each.

    More than `ACROSS` stand in several rows.
    """
    # Placed by hand, in inches: automatic layout costs as much as drawing, and a sweep has dozens of these.
    rows = -(-len(parts) // ACROSS)
    columns = -(-len(parts) // rows)
    left, side, gap, right, below, share, between = 0.5, 1.75, 0.32, 0.12, 0.42, 0.46, 0.18
    width = left + columns * side + (columns - 1) * gap + right
    title = wrapped(title, width - 0.2, 9.5, "bold")
    head = 0.16 + 0.14 * max(2 + (note or "").count("\n") for _, _, note in parts)
    row = head + side - 0.05 + between + share + below
    height = rows * row + (0.27 + height_of([title], 9.5) if title else 0)
    figure = Figure(figsize=(width, height))
    for number, (name, bins, note) in enumerate(parts):
        down, column = divmod(number, columns)
        x, bottom = left + column * (side + gap), (rows - 1 - down) * row + below
        upper, lower = (
            figure.add_axes((x / width, y / height, side / width, tall / height))
            for y, tall in ((bottom + share + between, side - 0.05), (bottom, share))
        )
        reliability(upper, bins, name, note)
        counts(lower, bins)
        upper.tick_params(labelbottom=False, labelleft=column == 0)
        if column == 0:
            upper.set_ylabel("accuracy %")
            lower.set_ylabel("share %")
    if title:
        figure.text(0.5, 1 - 0.08 / height, title, fontsize=9.5, fontweight="bold", ha="center", va="top")
    return figure


def histograms(
    axes: Axes,
    clean: np.ndarray | None,
    attacked: np.ndarray,
    most: float,
    label: str,
    title: str = "",
    percent: bool = False,
) -> None:
    """Share of samples over [0, most]: attacked filled, the same samples clean as a line."""
    edges = np.linspace(0, most, len(attacked) + 1)
    share = attacked / max(attacked.sum(), 1)
    axes.stairs(share, edges, fill=True, color=BAR, label="attacked")
    if clean is not None:
        axes.stairs(clean / max(clean.sum(), 1), edges, color=INK, linewidth=1.1, label="clean")
    axes.set_xlim(0, most)
    label_percent(axes, x=percent, y=True, limit=False)
    axes.set_xlabel(label)
    axes.set_title(title)


def _boxes(left: np.ndarray, right: np.ndarray, bottom: np.ndarray, top: np.ndarray) -> list[np.ndarray]:
    corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
    return list(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1))


def _two_ticks(top: float) -> FixedLocator:

    step = 10 ** np.floor(np.log10(max(top, 1e-6)))
    return FixedLocator([0, max(step * np.floor(top / step), step / 10)])
