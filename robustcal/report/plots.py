"""The figures of a report: one function each, from results to a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..metrics.bins import ReliabilityBins
from .averages import Averages
from .diagrams import histograms, pool, reliability_row
from .evaluate import Measured, Results
from .layouts import radii
from .lettering import drawable, height_of, legend, name_of, ticks, wrapped
from .style import INK, label_percent, look, panels


def clean_cells(results: Results, model: str, datasets: Sequence[str]) -> list[Measured]:
    found = [c for c in results.cells if c.model == model and c.kind == "clean" and c.dataset in datasets]
    return list({cell.dataset: cell for cell in found}.values())


def reliability_figure(results: Results, model: str, attack: str) -> Figure | None:
    """Clean and every radius of an attack side by side, the samples of all data sets together."""
    parts: list[tuple[str, ReliabilityBins, str]] = []
    for eps in radii(results):
        cells = [
            c
            for c in results.cells
            if (c.model, c.attack, c.eps) == (model, attack, eps) and c.meta.task == "single"
        ]
        if not cells:
            continue
        if not parts:
            clean = clean_cells(results, model, [c.dataset for c in cells])
            parts += [("clean", *_pooled(clean))] if clean else []
        parts.append((f"radius {eps}", *_pooled(cells)))
    if not parts:
        return None
    sets = len({c.dataset for c in results.cells if c.model == model and c.meta.task == "single"})
    where = f" ({sets} data sets together)" if sets > 1 else ""
    return reliability_row(parts, f"{name_of(results, 'model', model)} under {name_of(results, 'attack', attack)}{where}")


def _pooled(cells: Sequence[Measured]) -> tuple[ReliabilityBins, str]:
    bins = pool([cell.details.bins for cell in cells])
    if len(cells) > 1:
        return bins, f"ECE {100 * bins.error():.1f} %"
    value, low, high = cells[0].interval("ece")
    return bins, f"ECE {100 * value:.1f} %\n[{100 * low:.1f}, {100 * high:.1f}]"


def cell_figure(results: Results, cell: Measured) -> Figure:
    """The reliability diagram of one cell, the clean one beside it."""
    clean = results.clean_of(cell)
    pair = [("clean", *_pooled([clean]))] if clean and clean is not cell else []
    names = [name_of(results, axis, getattr(cell, axis)) for axis in ("model", "dataset", "attack")]
    radius = "clean" if cell.kind == "clean" else f"radius {cell.eps}"
    return reliability_row([*pair, (radius, *_pooled([cell]))], " / ".join(names))


def histogram_figure(results: Results, attack: str, eps: str, what: str = "confidence") -> Figure | None:
    """Confidence or entropy of every model before and after an attack, all data sets together."""
    groups = []
    for model in results.values("model"):
        cells = [
            c
            for c in results.cells
            if (c.model, c.attack, c.eps) == (model, attack, eps) and c.meta.task == "single"
        ]
        if cells:
            groups.append((model, cells, clean_cells(results, model, [c.dataset for c in cells])))
    if not groups:
        return None
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    titles = [wrapped(name_of(results, "model", model), 1.8) for model, _, _ in groups]
    figure, axes = panels(columns, rows, 2.1, 1.7 + height_of(titles), sharey=True)
    for ax, title, (_, cells, clean) in zip(axes, titles, groups):
        after, before = _counts(cells, what), _counts(clean, what)
        assert after is not None  # a group has cells
        most = 1.0
        label = "confidence %" if what == "confidence" else "entropy / log C"
        histograms(ax, before, after, most, label, title, percent=what == "confidence")
    axes[0].set_ylim(bottom=0)  # shared: set once all panels are drawn, else the first one's height is that of all
    for ax in axes[::columns]:
        ax.set_ylabel("share %")
    for ax in axes[len(groups) :]:
        ax.set_visible(False)
    legend(figure, axes)
    return figure


def entropy_figure(results: Results, attack: str, eps: str) -> Figure | None:
    """`histogram_figure` of the entropy."""
    return histogram_figure(results, attack, eps, "entropy")


def _counts(cells: Sequence[Measured], what: str) -> np.ndarray | None:
    if not cells:
        return None
    return np.asarray(np.sum([c.details.confidences if what == "confidence" else c.details.entropies for c in cells], axis=0))


def curve_figure(results: Results, attack: str, ax: Any = None) -> Figure | None:
    """Accuracy and ECE against the radius, averages over data sets, with 95 % intervals. `ax`: two axes to draw on."""
    averages, steps = Averages(results), radii(results)
    found = {
        m: [(0.0, averages.clean(m))] + [(_size(results, e), averages.get(m, attack, e)) for e in steps]
        for m in averages.models
    }
    lines = {m: [(x, y) for x, y in points if y is not None] for m, points in found.items()}
    if not any(len(points) > 1 for points in lines.values()):
        return None
    figure, axes = panels(2, 1, 3.2, 2.7, ax)
    shift = min(0.006, 0.04 / len(lines)) * max(x for points in lines.values() for x, _ in points)
    for panel, (name, title) in zip(axes, (("accuracy", "accuracy %"), ("ece", "calibration error (ECE) %"))):
        for i, (model, points) in enumerate(lines.items()):
            if not points:  # the attack never met this model
                continue
            x = np.array([p[0] for p in points]) + (i - len(lines) / 2) * shift
            y = np.array([p[1].interval(name) for p in points])
            panel.errorbar(
                x, y[:, 0], _bars(y), label=name_of(results, "model", model), markersize=4, elinewidth=0.7, capsize=1.5, **look(i)
            )
        ticks(panel, {"0": 0.0, **{e: _size(results, e) for e in steps}})
        panel.set_xlabel(wrapped(f"radius ({name_of(results, 'attack', attack)})", 2.6))
        panel.set_ylabel(title)
        panel.grid(axis="y")
        panel.set_ylim(bottom=0)
        label_percent(panel, limit=False)
    legend(figure, axes, own=ax is None)
    return figure


def scatter_figure(results: Results, attack: str, eps: str, ax: Any = None) -> Figure | None:
    """Accuracy against ECE of all models: hollow clean, filled attacked, joined by a line. `ax`: axes to draw on."""
    averages = Averages(results)
    both = [(m, averages.clean(m), averages.get(m, attack, eps)) for m in averages.models]
    found = [(m, before, after) for m, before, after in both if after is not None]
    if not found:
        return None
    figure, (panel,) = panels(1, 1, 3.5, 3.1, ax)
    for i, (model, before, after) in enumerate(found):
        style = look(i)
        x, y = after.values["accuracy"], after.values["ece"]
        if before is not None:
            bx, by = before.values["accuracy"], before.values["ece"]
            panel.plot([bx, x], [by, y], color=style["color"], linewidth=0.8, alpha=0.6)
            panel.plot(
                [bx],
                [by],
                color=style["color"],
                marker=style["marker"],
                markersize=5,
                markerfacecolor="white",
                linestyle="none",
            )
        down, up = _bars(np.array([after.interval("ece")]))[:, 0]
        left, right = _bars(np.array([after.interval("accuracy")]))[:, 0]
        panel.errorbar(
            [x], [y], [[down], [up]], [[left], [right]], elinewidth=0.7, color=style["color"], marker=style["marker"],
            markersize=5.5, label=name_of(results, "model", model), linestyle="none",
        )  # fmt: skip
    panel.set_xlabel("accuracy %")
    panel.set_ylabel("calibration error (ECE) %")
    panel.set_title(wrapped(f"hollow: clean, filled: {name_of(results, 'attack', attack)} at {eps}", 2.8), color=INK)
    panel.grid()
    panel.set_axisbelow(True)
    panel.set_xlim(left=-0.02)
    panel.set_ylim(bottom=0)
    label_percent(panel, x=True, limit=False)
    legend(figure, [panel], own=ax is None)
    return figure


def risk_figure(results: Results, attack: str, eps: str, ax: Any = None) -> Figure | None:
    """Risk against coverage when the least confident are refused: clean and attacked, mean over data sets. `ax`: two axes."""
    figure, axes = panels(2, 1, 3.2, 2.7, ax, sharey=True)
    drawn = False
    for i, model in enumerate(results.values("model")):
        cells = [
            c
            for c in results.cells
            if (c.model, c.attack, c.eps) == (model, attack, eps) and c.meta.task == "single"
        ]
        for panel, members in zip(axes, (clean_cells(results, model, [c.dataset for c in cells]), cells)):
            if members:
                style, drawn = look(i), True
                risk = np.mean([c.details.risk for c in members], axis=0)
                panel.plot(
                    members[0].details.coverage,
                    risk,
                    markevery=(4 + i % 4, 16),
                    markersize=4,
                    label=name_of(results, "model", model),
                    **style,
                )
    for panel, title in zip(axes, ("clean", f"{name_of(results, 'attack', attack)} at {eps}")):
        panel.set_title(wrapped(title, 2.6))
        panel.set_xlabel("coverage %")
        panel.grid()
        label_percent(panel, x=True, limit=True)
    axes[0].set_ylabel("errors among those answered, %")
    legend(figure, axes, own=ax is None)
    return figure if drawn else None


def image_figure(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], eps: float) -> Figure:
    """Worst images with their perturbation: clean, attacked, and the change, stretched to the whole range.

    Args:
        rows: (caption, clean image, attacked image), images (3, H, W) or (H, W, 3) in [0, 1]. More than four stand in
            two columns.
        eps: radius, in [0, 1].
    """
    across = 1 if len(rows) <= 4 else 2
    figure, axes = panels(3 * across, -(-len(rows) // across), 1.25 if across == 1 else 1.2, 1.08)
    for ax in axes:
        ax.set_axis_off()
    for i, (caption, clean, attacked) in enumerate(rows):
        before, after = (np.moveaxis(x, 0, -1) if x.shape[0] == 3 else x for x in (np.asarray(clean), np.asarray(attacked)))
        change = 0.5 + (after - before) / (2 * eps) if eps > 0 else np.full_like(before, 0.5)
        for ax, picture, title in zip(axes[3 * i :], (before, after, change), ("clean", "attacked", "change,\nstretched")):
            ax.imshow(np.clip(picture, 0, 1), interpolation="nearest")
            if i < across:
                ax.set_title(title, fontsize=7.5)
        text = "\n".join(wrapped(drawable(line), 0.9, 6.5, most=3) for line in caption.splitlines())
        axes[3 * i].text(-0.06, 0.5, text, fontsize=6.5, ha="right", va="center", transform=axes[3 * i].transAxes)
    return figure


def _size(results: Results, eps: str) -> float:
    return next(cell.meta.threat.eps for cell in results.cells if cell.eps == eps)


def _bars(rows: np.ndarray) -> np.ndarray:
    """Distances (2, N) from values to their limits, for rows of (value, lo, hi); 0 where unknown or beyond."""
    return np.asarray(np.nan_to_num(np.maximum(np.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]), 0)))
