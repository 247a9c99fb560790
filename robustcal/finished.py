"""`Bench`: a run directory as Python sees it, with frames, reports and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .types import UserError

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .report.evaluate import Results
    from .report.verb import Report
    from .sweep.plan import Failure

#: What a notebook shows of every cell.
SHOWN = ("model", "dataset", "attack", "eps", "n", "accuracy", "accuracy_lo", "accuracy_hi", "ece", "ece_lo", "ece_hi", "flags")
#: Kind of a plot -> the part of `report` with its function, that function, and the names that it needs beside the results.
PLOTS = {
    "accuracy-ece": ("plots", "scatter_figure", ("attack", "eps")),
    "reliability": ("plots", "reliability_figure", ("model", "attack")),
    "radius": ("plots", "curve_figure", ("attack",)),
    "risk-coverage": ("plots", "risk_figure", ("attack", "eps")),
    "confidence": ("plots", "histogram_figure", ("attack", "eps")),
    "entropy": ("plots", "entropy_figure", ("attack", "eps")),
    "premise": ("course_plot", "premise_figure", ("attack",)),
    "trade-off": ("trade_off_plot", "trade_off_figure", ("attack", "eps")),
    "minimal-norm": ("minimal_norm_plot", "minimal_norm_figure", ()),
}
#: Plots whose number of panels follows from the run: they draw on no axes of the caller's.
WHOLE = ("reliability", "confidence", "entropy", "minimal-norm")


class Bench:
    """A sweep that was run. `.cells` and `.samples` are pandas frames, `.path` is the run directory.

    ``Bench("runs/mine")`` is a run of yesterday. What is read is kept; make a new one when the run has grown.

    Args:
        path: the run directory.
        notes: what was noticed on the way, a line each.
        failures: what was asked for and could not be done.
    """

    def __init__(self, path: str | Path, notes: Sequence[str] = (), failures: Sequence[Failure] = ()):
        self.path, self.notes, self.failures = Path(path), list(notes), list(failures)

    @cached_property
    def results(self) -> Results:
        """Every number of the run with its interval, computed once: what tables, figures and the page start from."""
        from .report.report import gather

        return gather([self.path])

    @property
    def cells(self) -> pandas.DataFrame:
        """One row per (model, dataset, attack, radius): metrics with 95 % bounds, and flags."""
        from .report.frame import cells_frame

        return cells_frame(self.results)

    @property
    def samples(self) -> pandas.DataFrame:
        """One row per sample of every cell."""
        from .records.store import Run
        from .report.frame import samples_frame

        return samples_frame([Run.open(self.path)])

    def report(self, formats: Iterable[str] | str = "text", **how: Any) -> Report:
        """Tables, figures and the page of this run: `robustcal.report` with the same parameters."""
        from .report.verb import report

        return report(self.path, formats=formats, **how)

    def plot(
        self, kind: str = "accuracy-ece", *, attack: str | None = None, eps: str | None = None, model: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> Figure:  # fmt: skip
        """One figure of the run, as a matplotlib figure; a notebook shows it.

        Args:
            kind: "accuracy-ece", "reliability", "radius", "risk-coverage", "confidence", "entropy", "premise", "trade-off" or
                "minimal-norm".
            attack: spec or label; default: the last whose calibration means something.
            eps: radius such as "1/255"; default: the second smallest, as in the report.
            model: of "reliability"; default: the first.
            ax: the axes to draw on, one for each panel, of the plots with a fixed number of them; default: a new figure.

        Raises:
            UserError: unknown kind or name; a run without what the figure shows.
        """
        from .report.style import styled

        if kind not in PLOTS:
            raise UserError(f"unknown plot '{kind}'; there are: {', '.join(PLOTS)}")
        if ax is not None and kind in WHOLE:
            raise UserError(f"plot '{kind}' has as many panels as the run asks for and makes its own figure; leave ax out")
        part, function, needs = PLOTS[kind]
        chosen = self._shown(attack, eps, model)
        with styled():
            place = {} if ax is None else {"ax": ax}
            draw = getattr(import_module(f"{__package__}.report.{part}"), function)
            figure: Figure | None = draw(self.results, *(chosen[name] for name in needs), **place)
        if figure is None:
            what = " at ".join(chosen[name] for name in needs) or "its kind"
            raise UserError(f"plot '{kind}' is empty: '{self.path}' has no cells of {what} that it could show")
        return figure

    def _shown(self, attack: str | None, eps: str | None, model: str | None) -> dict[str, str]:
        """The whole names of what a plot shows, where not given those that the report's figures show."""
        from .report.parts import attacks_at, radii, shown_attack

        results = self.results
        steps = radii(results)
        if not steps:
            raise UserError(f"'{self.path}' has clean cells only; there is nothing to plot against an attack")
        eps = steps[min(1, len(steps) - 1)] if eps is None else eps
        if eps not in steps:
            raise UserError(f"no cell has the radius '{eps}'; there are: {', '.join(steps)}")
        labels = results.labels["attack"]
        found = attack and next((whole for whole, label in labels.items() if attack in (whole, label)), None)
        if attack and not found:
            raise UserError(f"no attack of the run is called '{attack}'; there are: {', '.join(labels.values())}")
        harmful = {cell.attack for cell in results.cells if cell.kind not in ("clean", "control")}
        usual = found or shown_attack(results, [name for name in attacks_at(results, eps) if name in harmful], eps)
        if usual is None:
            raise UserError(f"'{self.path}' has no attack at {eps}; name one with attack=")
        return {"attack": usual, "eps": eps, "model": results.values("model")[0] if model is None else results.model(model)}

    def __repr__(self) -> str:
        from .records.store import Run

        cells = Run.open(self.path).cells()
        counts = {axis: len({getattr(cell, axis) for cell in cells}) for axis in ("model", "dataset", "attack")}
        axes = ", ".join(f"{count} {axis}{'s' * (count != 1)}" for axis, count in counts.items())
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Bench '{self.path}': {len(cells)} cells of {axes}{failed}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for every cell."""
        frame = self.cells
        html: str = frame[[name for name in SHOWN if name in frame]].to_html(index=False, float_format="{:.4f}".format)
        return html
