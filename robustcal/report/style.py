"""How figures look: readable in print, in greyscale and by the colour-blind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..types import UserError

#: Okabe and Ito's palette, ordered so that neighbours differ in lightness too; each with its own marker and dashes.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#8c6d1f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
#: Characters in a line of a legend.
LEGEND = 30
BAR, GAP, GAP_FILL, INK, SOFT = "#4c8fc3", "#b3461a", "#fbe6da", "#1a1d21", "#7a828c"

RC = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.titlesize": 8.5,
    "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.edgecolor": SOFT, "xtick.color": INK, "ytick.color": INK, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "grid.color": "#dfe3e8", "grid.linewidth": 0.6, "hatch.linewidth": 0.7, "hatch.color": GAP,
    "legend.frameon": False,     "lines.linewidth": 1.4, "pdf.fonttype": 42,
    "svg.hashsalt": "robustcal", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in the house style; the caller's own settings come back afterwards."""
    with matplotlib.rc_context(RC):  # type: ignore[arg-type]
        yield


def look(index: int) -> dict[str, Any]:
    """Line colour, marker and dashes of the index-th model: no two of 32 share marker and dashes, for who sees grey."""
    turn = index // len(MARKERS)
    return {
        "color": COLORS[(index + turn) % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[(index + turn) % len(DASHES)],
    }


def panels(
    columns: int, rows: int = 1, width: float = 2.1, height: float = 2.3, ax: Any = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, sizes in inches, without pyplot and its global state.

    Args:
        ax: the axes to draw on instead, one for each panel.

    Raises:
        UserError: another number of them than there are panels.
    """
    if ax is not None:
        given = [ax] if isinstance(ax, Axes) else list(np.ravel(ax))
        if len(given) != columns * rows:
            raise UserError(f"this plot has {columns * rows} panels, but ax gives {len(given)}")
        root: Any = given[0].get_figure(root=True)
        return root, given
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def legend(figure: Figure, axes: Axes, own: bool = True) -> None:
    """One legend below the panels, in as many columns as the figure is wide; the figure grows by its rows.

    Args:
        own: the figure is ours; else the legend goes into the caller's axes.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    wrapped = [textwrap.fill(label, LEGEND) for label in labels]
    if not own:
        axes.legend(handles, wrapped)
        return
    width, height = figure.get_size_inches()
    longest = max(len(line) for label in wrapped for line in label.splitlines())
    columns = max(1, min(len(wrapped), int(width / (0.062 * longest + 0.5))))
    rows = -(-len(wrapped) // columns)
    lines = rows * max(label.count("\n") + 1 for label in wrapped)
    figure.set_size_inches(width, height + 0.13 * max(0, lines - 1))
    figure.legend(handles, wrapped, loc="outside lower center", ncols=columns)


def radius_ticks(axes: Axes, sizes: Mapping[str, float]) -> None:
    """Radii on the x axis: a tick for each, a label where there is room for it beside the last one.

    Args:
        sizes: text of the radius -> its size, ascending.
    """
    width = axes.get_figure(root=True).get_size_inches()[0] * axes.get_position().width  # type: ignore[union-attr]
    span = max(sizes.values()) or 1.0
    labels, last = [], -1.0
    for text, size in sizes.items():
        room = (0.065 * len(text) + 0.06) / max(width, 0.1) * span * 1.1
        shown = size - last >= room or last < 0
        labels.append(text if shown else "")
        last = size if shown else last
    axes.set_xticks(list(sizes.values()), labels)


def label_percent(axes: Axes, x: bool = False, y: bool = True, limit: bool = True) -> None:
    """Fractions on the axes, percentages in their labels."""
    for chosen, axis, bounds in ((x, axes.xaxis, axes.set_xlim), (y, axes.yaxis, axes.set_ylim)):
        if chosen:
            axis.set_major_formatter(lambda value, _: f"{100 * value:g}")
            if limit:
                bounds(0, 1)


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("pdf", "svg", "png")) -> list[Path]:
    """Write a figure in several formats; the same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}, "png": {}}
    paths = []
    for kind in formats:
        path = stem.with_name(f"{stem.name}.{kind}")
        figure.savefig(path, dpi=160, metadata=metadata.get(kind))
        paths.append(path)
    return paths
