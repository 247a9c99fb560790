"""`robustcal.report`: the public verb, which is also the name of this package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..types import UserError


@dataclass(frozen=True)
class Report:
    """What a report is made of: the tables as `text`, which ``print`` shows, and the `paths` of the files written."""

    text: str
    paths: list[Path]

    def __str__(self) -> str:
        return self.text or "\n".join(map(str, self.paths))


def report(
    *runs: str | Path,
    formats: Iterable[str] | str = "text",
    out: str | Path | None = None,
    layout: str | None = None,
    metrics: Sequence[str] = (),
    compare: str | None = None,
    versus: str | None = None,
    bins: int | None = None,
    rename: Sequence[str] = (),
    caption: str = "full",
    width: int | None = None,
    title: str = "",
) -> Report:
    """Tables, figures and the page from the records of runs; no attack is computed.

    Args:
        runs: run directories; several are merged.
        formats: of text, md, tex, csv, json, html, diagrams, figures, cells, one or several.
        out: where files go; default: ``report`` below the first run.
        layout: of main, calibration, by-eps ..., several joined by commas, or "all"; default: those that have cells.
        metrics: specs of further metrics, shown by the layout "metrics".
        compare: "ucat" sets the numbers that paper published beside the measured ones.
        versus: the model that all others are compared with, in the layout "versus".
        bins: of every calibration number and diagram; default 15.
        rename: ``OLD=NEW``, other labels.
        caption: "full", with the whole protocol, or "short".
        width: characters in a line of text; default: the terminal's.
        title: of the page.

    Raises:
        UserError: no run, an unknown name, a layout without cells, or a folder that cannot be written.
    """
    from . import report as reporting

    if not runs:
        raise UserError("report needs the path of a run")
    chosen = [formats] if isinstance(formats, str) else list(formats)
    to = Path(out) if out is not None else Path(runs[0]) / "report"
    layout = "versus" if layout is None and versus is not None else layout
    layout = "metrics" if layout is None and metrics and "text" in chosen else layout
    reporting.check_request(chosen, layout, compare, metrics, to, versus, caption, bins)
    files = [name for name in chosen if name != "text"]
    needed = reporting.metrics_for(layout or ("main" if not files else None))
    results = reporting.gather(
        runs, metrics=needed, details=bool(files), wanted=metrics, bins=bins, rename=rename, versus=versus,
        title=title,
    )  # fmt: skip
    text = ""
    if "text" in chosen:
        text = reporting.text_report(results, layout=layout or "main", compare=compare, caption=caption, width=width)
    paths = reporting.write_report(results, files, to, layout=layout, compare=compare, caption=caption) if files else []
    return Report(text, paths)


class Verb(ModuleType):
    """A module that can be called: ``robustcal.report("runs/x")``, while ``robustcal.report.stats`` is a part of it.

    Assigning a module's ``__class__`` is Python's own way, see "Customizing module attribute access" in its data model.
    """

    __call__ = staticmethod(report)
