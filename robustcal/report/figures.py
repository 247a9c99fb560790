"""Write the figures of a report to files: vector and PNG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import plots
from .evaluate import Results
from .minimal_norm_plot import minimal_norm_figure
from .parts import first_shown
from .style import save, styled


def write_diagrams(results: Results, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write ``reliability/MODEL-ATTACK``: clean and every radius side by side. Returns the paths."""
    attacks = [
        a
        for a in results.values("attack")
        if any(c.attack == a and c.kind not in ("clean", "control", "shift") for c in results.cells)
    ]
    paths: list[Path] = []
    with styled():
        for model in results.values("model"):
            for attack in attacks:
                figure = plots.reliability_figure(results, model, attack)
                if figure is not None:
                    names = f"{results.labels['model'][model]}-{results.labels['attack'][attack]}"
                    paths += save(figure, out / "reliability" / file_name(names), formats)
    return paths


def write_figures(results: Results, out: Path, formats: Sequence[str] = ("pdf", "svg", "png")) -> list[Path]:
    """Write ``figures/*``: histograms, curves, the scatter of all models, risk-coverage. Returns the paths."""
    attack, eps = first_shown(results)
    if attack is None:
        return []
    with styled():
        figures = {
            "confidence": plots.histogram_figure(results, attack, eps),
            "entropy": plots.entropy_figure(results, attack, eps),
            "radius": plots.curve_figure(results, attack),
            "accuracy-ece": plots.scatter_figure(results, attack, eps),
            "risk-coverage": plots.risk_figure(results, attack, eps),
            "minimal-norm": minimal_norm_figure(results),
        }
        return [
            path
            for name, figure in figures.items()
            if figure
            for path in save(figure, out / "figures" / name, formats)
        ]


def write_cell_diagrams(results: Results, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write one reliability diagram for every cell, ``reliability/CELL``: hundreds of files for a large sweep."""
    with styled():
        return [
            path
            for cell in results.cells
            for path in save(plots.cell_figure(results, cell), out / "reliability" / cell.id, formats)
        ]


def file_name(text: str) -> str:
    """A name every file system takes, in the letters of its text; distinct for distinct texts up to odd signs."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "cell"
