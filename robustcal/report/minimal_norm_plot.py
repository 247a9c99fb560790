"""A figure of minimal-norm attacks: accuracy against the radius as the step curve of all distances found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .again import readers
from .evaluate import Measured, Results
from .lettering import legend, name_of
from .minimal_norm import distances, nearest_cells
from .style import label_percent, look, panels


def minimal_norm_figure(results: Results) -> Figure | None:
    """A panel for each norm, a curve for each model and attack, the samples of all its data sets together; None without cells."""
    cells = nearest_cells(results)
    norms = list(dict.fromkeys(cell.meta.threat.norm for cell in cells))
    if not norms:
        return None
    figure, axes = panels(len(norms), 1, 3.4, 2.7)
    places = {pair: i for i, pair in enumerate(dict.fromkeys((cell.model, cell.attack) for cell in cells))}
    for ax, norm in zip(axes, norms, strict=True):
        draw(results, [cell for cell in cells if cell.meta.threat.norm == norm], ax, places)
    legend(figure, axes)
    return figure


def draw(results: Results, cells: list[Measured], ax: Axes, places: Mapping[tuple[str, str], int]) -> None:
    """The curves of cells of one norm; a curve ends at the largest radius. `places`: (model, attack) -> which look is its own."""
    read, scale = readers(results), 255 if cells[0].meta.threat.norm == "linf" else 1
    attacks = {attack for _, attack in places}
    for (model, attack), i in places.items():
        here = [cell for cell in cells if (cell.model, cell.attack) == (model, attack)]
        if not here:
            continue
        norm, largest = here[0].meta.threat.norm, here[0].meta.threat.eps
        found = np.concatenate([distances(read[cell.id](("id", "correct", norm)), norm) for cell in here])
        x = np.unique(np.append(found[np.isfinite(found)], [0, largest]))
        y = 1 - np.searchsorted(np.sort(found), x, side="right") / len(found)
        name = name_of(results, "model", model) + (f", {name_of(results, 'attack', attack)}" if len(attacks) > 1 else "")
        ax.step(x * scale, y, where="post", label=name, markevery=(0.03 * (i % 5), 0.15), markersize=4, **look(i))
    ax.set_xlabel("radius x 255" if scale == 255 else "radius, Euclidean")
    ax.set_ylabel("accuracy %")
    ax.set_ylim(0, 1)
    ax.grid()
    label_percent(ax, limit=False)
