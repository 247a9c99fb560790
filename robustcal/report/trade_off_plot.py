"""A figure of the trade-off: robust accuracy and attacked ECE against clean accuracy, a line for every family."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .averages import SINGLE, Averages, Member
from .evaluate import Results
from .lettering import Mark, beside, drawable, legend, wrapped
from .style import SOFT, label_percent, look, panels
from .trade_off import equal_clean, families, points, stacked


def trade_off_curves(results: Results, member: Member, ece: bool = False, ax: Axes | None = None) -> Axes:
    """Robust accuracy, or attacked ECE, of every family against clean accuracy, under one attack and radius.

    Points are models with their strength beside them where there is room; the dotted line is the point of equal clean accuracy.

    Args:
        member: attack and radius, such as ``("pgd", "1/255")``.
        ax: where to draw; by default a figure of its own.
    """
    if ax is None:
        ax = Figure(layout="constrained").subplots()
    averages, curves, marks = Averages(results, SINGLE), [], list[Mark]()
    labels = results.labels["attack"]
    called = {(name, c.eps): (c.attack, c.eps) for c in results.cells for name in (labels[c.attack], c.attack)}
    where = called.get(member, member)
    for i, family in enumerate(families(results)):
        found = points(averages, family, where)
        if len(found) < 2:
            continue
        curves.append(stacked(found, draws=False))
        x, robust, error = (part[:, 0] for part in curves[-1])
        y = error if ece else robust
        limits = np.array([p.attacked.interval("ece" if ece else "accuracy")[1:] for p in found]).T
        bars = np.nan_to_num(np.maximum([y - limits[0], limits[1] - y], 0))
        style: dict[str, Any] = {**look(i), "markersize": 4, "elinewidth": 0.7, "capsize": 1.5}
        ax.errorbar(x, y, bars, label=drawable(f"{family.title}, {family.parameter}"), **style)
        named = [Mark(family.written(p.strength), *at) for p, *at in zip(found, x, y, y - bars[0], y + bars[1], strict=True)]
        marks += [named[0], named[-1], *named[1:-1]]  # the ends first
    level = equal_clean(curves) if len(curves) > 1 else None
    if level is not None:
        ax.axvline(level, color=SOFT, linestyle=":", linewidth=0.9)
    beside(ax, marks)
    ax.set_xlabel("clean accuracy %")
    ax.set_ylabel(wrapped("calibration error (ECE) under attack %" if ece else "accuracy under attack %", 2))
    ax.grid()
    label_percent(ax, x=True, limit=False)
    return ax


def trade_off_figure(results: Results, attack: str, eps: str, ax: Any = None) -> Figure | None:
    """Both panels side by side; None where no models differ in one number. `ax`: two axes to draw on."""
    if not families(results):
        return None
    figure, axes = panels(2, 1, 3.2, 2.7, ax)
    for panel, ece in zip(axes, (False, True), strict=True):
        trade_off_curves(results, (attack, eps), ece, panel)
    legend(figure, axes, own=ax is None)
    return figure
