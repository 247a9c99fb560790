"""How figures look: readable in print, in greyscale and by the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..types import UserError
from .lettering import FONT, LEGEND_SIZE, TITLE_SIZE, families

#: Okabe and Ito's palette, ordered so that neighbours differ in lightness too. The numbers of colours and of dashes have no
#: divisor in common with that of markers: 52 series differ in marker or dashes, 104 in marker or colour.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#8c6d1f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "d", (4, 1, 0))
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
BAR, GAP, GAP_FILL, INK, SOFT = "#4c8fc3", "#b3461a", "#fbe6da", "#1a1d21", "#7a828c"

RC = {
    "font.family": [FONT], "font.size": 8, "axes.titlesize": TITLE_SIZE,
    "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": LEGEND_SIZE, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.edgecolor": SOFT, "xtick.color": INK, "ytick.color": INK, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "grid.color": "#dfe3e8", "grid.linewidth": 0.6, "hatch.linewidth": 0.7, "hatch.color": GAP,
    "legend.frameon": False, "text.parse_math": False, "lines.linewidth": 1.4, "pdf.fonttype": 42,
    "svg.hashsalt": "robustcal", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in the house style; the caller's own settings come back afterwards."""
    fonts = {"font.family": [*families()]}  # by their names: of "sans-serif" the first only would be asked for a sign
    with matplotlib.rc_context(RC | fonts):  # type: ignore[arg-type]
        yield


def look(index: int) -> dict[str, Any]:
    """Line colour, marker and dashes of the index-th model."""
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
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
        for text in (text for one in given for text in (one.title, one.xaxis.label, one.yaxis.label)):
            text.set_parse_math(False)  # made before our settings: a label's dollar sign is no mathematics
        root: Any = given[0].get_figure(root=True)
        return root, given
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


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
