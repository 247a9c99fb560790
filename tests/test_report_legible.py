"""Every figure with many models of long names, nine radii and sixteen data sets: each text can be read, each series told apart."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.legend import Legend
from synthetic_run import make_run

from robustcal.metrics.bins import reliability_bins
from robustcal.report import course_plot, diagrams, lettering, minimal_norm_plot, plots, style, trade_off_plot
from robustcal.report.courses import courses
from robustcal.report.evaluate import Results
from robustcal.report.report import gather
from robustcal.report.style import styled
from robustcal.train.log import log_figure
from robustcal.types import radius_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import protocol_figures  # noqa: E402

RADII = ("1/510", "1/255", "2/255", "1/85", "4/255", "2/85", "8/255", "4/85", "16/255")  # 0.5 to 16 over 255
LONG = [f"{word} {i:02d} of the adversarial fine-tunings"[:40].ljust(40, "x") for i, word in enumerate(["Checkpoint"] * 14)]
#: Labels that drawing could trip over: unpaired and paired dollar signs, TeX's signs, scripts, a word without a break.
ODD = ["50 % of $5", "a_b$^2 {x}$ \\frac", "$\\ell_\\infty$-PGD at $\\epsilon$", "我们的方法 比较 模型 鲁棒性", "نموذجنا", "W" * 40]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three models on one data set, four images, nine radii."""
    run = make_run(tmp_path_factory.mktemp("legible") / "run", attacks=("clean", "pgd"), datasets=("digits",), radii=RADII, n=4)
    return gather([run.path], resamples=20)


def many(measured, labels, sets=2, spec="model{}") -> Results:
    """The same cells under as many models as there are labels, on so many data sets."""
    own = measured.values("model")
    cells = [
        replace(cell, model=spec.format(i), dataset=f"set{k}")
        for i in range(len(labels)) for k in range(sets) for cell in measured.cells if cell.model == own[i % len(own)]
    ]  # fmt: skip
    attack = {"pgd": "projected gradient descent, 20 steps, best of them"}
    given = {"model": {spec.format(i): label for i, label in enumerate(labels)}, "attack": attack}
    given["dataset"] = {f"set{k}": f"data set {k:02d} with a name of forty letters" for k in range(sets)}
    return Results(cells, runs=measured.runs, given=given)


def protocol_frame(labels) -> pd.DataFrame:
    """What the protocol study reads from its cells."""
    draw = np.random.default_rng(0)
    rows = [
        {"model": model, "dataset": dataset, "rule": rule, "side": side, "accuracy": draw.random(), "ece": draw.random()}
        for model in labels for dataset in ("digits", "letters") for rule in protocol_figures.RULES for side in (32, 64, 224)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    for name in ("accuracy", "ece"):
        frame[f"{name}_lo"], frame[f"{name}_hi"] = 0.9 * frame[name], 1.1 * frame[name]
    return frame


def training_log(labels) -> list[dict[str, str]]:
    """Rows of a log with a held-out number of each label, and five parts of the loss."""
    names = ["step", "loss", "lr", *(f"a_part_of_the_loss_{i}" for i in range(5)), *(f"held_out_{label}" for label in labels)]
    return [{name: str(10 * step if name == "step" else step / 8) for name in names} for step in range(1, 9)]


def both_precisions(labels) -> pd.DataFrame:
    frame = protocol_frame(labels)
    return frame.merge(frame, on=["model", "dataset", "rule", "side"], suffixes=("_fp32", "_fp16"))


def lines_of(results):
    family = many(results, [f"t {i}" for i in range(7)], 2, "interpolate:a=one-end-of-the-line:b=the-other-end:t=0.{}")
    return trade_off_plot.trade_off_figure(family, "pgd", "16/255")


def nearest(results):
    """The same cells as if the attack had looked for the nearest misclassified image, in both norms."""
    def found(cell, norm):
        threat = replace(cell.meta.threat, returns="nearest-else-clean", norm=norm)
        return replace(cell, meta=replace(cell.meta, identity=replace(cell.meta.identity, threat=threat)))

    results.cells = [found(cell, norm) for cell in results.cells if cell.eps == "16/255" for norm in ("linf", "l2")]
    return results


def some_bins():
    return reliability_bins(np.array([0.1, 0.5, 0.9, 0.95]), np.array([0, 1, 0, 1]))


#: Every public function of the package and of the benchmarks that makes a figure -> how it is drawn, from the measured cells
#: and the labels of their models. One that is missing here fails.
DRAWN = {
    "plots.reliability_figure": lambda m, labels: plots.reliability_figure(many(m, labels, 16), f"model{len(labels) - 1}", "pgd"),
    "plots.cell_figure": lambda m, labels: plots.cell_figure(r := many(m, labels, 16), r.cells[-1]),
    "plots.histogram_figure": lambda m, labels: plots.histogram_figure(many(m, labels, 16), "pgd", "8/255"),
    "plots.curve_figure": lambda m, labels: plots.curve_figure(many(m, labels), "pgd"),
    "plots.scatter_figure": lambda m, labels: plots.scatter_figure(many(m, labels), "pgd", "0.5/255"),
    "plots.risk_figure": lambda m, labels: plots.risk_figure(many(m, labels), "pgd", "0.5/255"),
    "plots.image_figure": lambda m, labels: plots.image_figure(
        [(f"{label}\n→ {label}\n100 %", np.zeros((3, 8, 8)), np.ones((3, 8, 8))) for label in labels], 0.1
    ),
    "diagrams.reliability_row": lambda m, labels: diagrams.reliability_row(
        [(f"radius {radius_text(radius)}", some_bins(), None) for radius in RADII], "A title without any end to it " * 9
    ),
    "plots.entropy_figure": lambda m, labels: plots.entropy_figure(many(m, labels), "pgd", "8/255"),
    "course_plot.premise_figure": lambda m, labels: course_plot.premise_figure(many(m, labels), "pgd"),
    "course_plot.course_figure": lambda m, labels: course_plot.course_figure(r := many(m, labels), courses(r)[0], "log10_eu"),
    "trade_off_plot.trade_off_figure": lambda m, labels: lines_of(m),
    "minimal_norm_plot.minimal_norm_figure": lambda m, labels: minimal_norm_plot.minimal_norm_figure(nearest(many(m, labels, 1))),
    "log.log_figure": lambda m, labels: log_figure(training_log(labels), " on ".join(labels)),
    "protocol_figures.by_rule": lambda m, labels: protocol_figures.by_rule(protocol_frame(labels).query("side == 32")),
    "protocol_figures.by_side": lambda m, labels: protocol_figures.by_side(protocol_frame(labels).query("rule == 'apgd'")),
    "protocol_figures.by_precision": lambda m, labels: protocol_figures.by_precision(both_precisions(labels).query("side == 32")),
}


def makers() -> set[str]:
    """MODULE.FUNCTION of all public functions whose source says that they return a figure."""
    files = [*(ROOT / "robustcal").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    return {
        f"{path.stem}.{node.name}"
        for path in files
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        and node.returns is not None and re.fullmatch(r"Figure( \| None)?", ast.unparse(node.returns))
    }  # fmt: skip


def drawn(figure: Figure) -> list[tuple[matplotlib.text.Text, matplotlib.transforms.Bbox]]:
    """Every text that drawing the figure really draws, with its extent in pixels."""
    found, usual = [], matplotlib.text.Text.draw

    def draw(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            found.append((text, text.get_window_extent(renderer)))
        return usual(text, renderer, *args, **kwargs)

    figure.set_dpi(160)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that no font has, a layout that does not fit
        patch.setattr(matplotlib.text.Text, "draw", draw)
        with styled():
            FigureCanvasAgg(figure).draw()
    return found


def overlap(a, b, slack=0.5) -> bool:
    return min(a.x1, b.x1) - max(a.x0, b.x0) > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack


def faults(figure: Figure) -> list[str]:
    """What a reader could not read, one line each."""
    texts, canvas = drawn(figure), figure.bbox
    assert texts
    wrong = [f"'{a.get_text()}' on '{b.get_text()}'" for (a, x), (b, y) in itertools.combinations(texts, 2) if overlap(x, y)]
    boxes = [(text.get_text(), box) for text, box in texts]
    boxes += [("legend", legend.get_window_extent()) for legend in figure.findobj(Legend)]
    for what, box in boxes:
        if box.x0 < canvas.x0 or box.y0 < canvas.y0 or box.x1 > canvas.x1 or box.y1 > canvas.y1:
            wrong.append(f"'{what}' leaves the canvas: {box} of {canvas}")
    for text, box in texts:
        for ax in figure.axes:
            if not ax.get_visible() or not overlap(box, ax.bbox):
                continue
            if text not in ax.texts:
                wrong.append(f"'{text.get_text()}' lies in a panel")
            wrong += [f"'{text.get_text()}' lies on a whisker" for whisker in whiskers(ax) if overlap(box, whisker, 0)]
    return wrong


def whiskers(ax) -> list[matplotlib.transforms.Bbox]:
    """Extents of the error bars, a pixel wide."""
    found = []
    for container in ax.containers:
        for bars in container.lines[2] if hasattr(container, "has_yerr") else ():
            for segment in bars.get_segments():
                box = matplotlib.transforms.Bbox(ax.transData.transform(segment))
                found.append(matplotlib.transforms.Bbox.from_extents(box.xmin - 0.5, box.ymin - 0.5, box.xmax + 0.5, box.ymax + 0.5))
    return found


def looks(figure: Figure) -> Counter[tuple]:
    """How often each look in grey stands in the legend: lightness in steps of 4 %, marker, dashes."""
    found = Counter()
    for legend in figure.findobj(Legend):
        for line in legend.get_lines():
            red, green, blue = to_rgb(line.get_color())
            marker = line.get_marker()
            dashes = line.get_linestyle() if line.get_linestyle() in ("None", "-") else str(line._unscaled_dash_pattern)
            found[round((0.299 * red + 0.587 * green + 0.114 * blue) / 0.04), str(marker), dashes] += 1
    return found


def draw(name, measured, labels):
    with styled():
        return DRAWN[name](measured, labels)


def test_every_figure_is_put_to_the_test():
    assert makers() == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_crowded_figure_can_be_read(name, measured):
    figure = draw(name, measured, LONG)
    assert faults(figure) == []
    assert figure.get_size_inches()[0] <= 11  # a page of a paper, and of the site
    assert all(count == 1 for count in looks(figure).values())


@pytest.mark.parametrize("name", DRAWN)
def test_labels_that_drawing_could_trip_over(name, measured):
    figure = draw(name, measured, ODD)
    assert faults(figure) == []


@pytest.mark.parametrize("name", DRAWN)
def test_one_model_is_enough(name, measured):
    assert faults(draw(name, measured, LONG[:1])) == []


def test_a_label_is_whole_in_the_legend(measured):
    figure = draw("plots.curve_figure", measured, LONG)
    said = [text.get_text().replace("\n", " ") for text in figure.legends[0].texts]
    assert [re.sub(r"\s+", "", text) for text in said] == [re.sub(r"\s+", "", label) for label in LONG]


def test_the_detector_sees_what_it_is_for():
    figure = Figure(figsize=(2, 2))
    ax = figure.subplots()
    ax.errorbar([0.5], [0.5], [0.4])
    ax.text(0.5, 0.5, "on a whisker")
    figure.text(0.85, 0.5, "leaves the canvas")
    figure.text(0.5, 0.02, "one")
    figure.text(0.52, 0.02, "other")
    found = "\n".join(faults(figure))
    for what in ("lies on a whisker", "leaves the canvas", "'one' on 'other'", "lies in a panel"):
        assert what in found
    with pytest.raises(UserWarning, match="Glyph"):
        figure.text(0.1, 0.9, "\U000f0000")
        drawn(figure)


@pytest.mark.parametrize("count", [1, 2, 3, 14])
def test_models_beside_one_another_stay_at_their_place(count):
    places = [protocol_figures.beside(i, count, 0.22) for i in range(count)]
    assert sum(places) == pytest.approx(0) and max(map(abs, places)) < 0.5 and places == sorted(set(places))


def test_many_series_differ_in_grey():
    both = [(str(style.look(i)["marker"]), str(style.look(i)["linestyle"])) for i in range(52)]
    assert len(set(both)) == 52


@pytest.mark.parametrize("text", [*LONG, *ODD, "a b " * 30, "", "x"])
def test_no_line_is_wider_than_asked_and_nothing_is_lost(text):
    text = lettering.drawable(text)
    lines = lettering.wrapped(text, 0.8).split("\n")
    assert all(lettering.inches(line, lettering.TITLE_SIZE) <= 0.8 for line in lines)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
    short = lettering.wrapped(text, 0.8, most=2).split("\n")
    assert len(short) <= 2 and (len(lines) <= 2 or short[-1].endswith("…"))


def test_a_sign_comes_from_another_font_where_one_has_it(measured, monkeypatch):
    """STIX, which matplotlib brings, stands for a font of the system."""
    signs = [get_font(findfont(name)).get_charmap() for name in ("STIXGeneral", lettering.FONT)]
    sign = chr(min(signs[0].keys() - signs[1].keys()))
    assert lettering.drawable(sign) != sign
    monkeypatch.setattr(lettering, "OTHERS", ("No such font", "STIXGeneral"))
    forget = (lettering.families, lettering._signs, lettering.inches)
    try:
        [kept.cache_clear() for kept in forget]
        assert lettering.drawable(sign) == sign
        assert faults(draw("plots.curve_figure", measured, [f"Ours {sign}", "base"])) == []
    finally:
        [kept.cache_clear() for kept in forget]


def test_the_largest_radius_keeps_its_label():
    with styled():
        figure, (ax,) = style.panels(1, 1, 3.2, 2.7)
        lettering.ticks(ax, {"0": 0.0, **{f"{r:g}/255": r / 255 for r in (0.5, 1, 2, 3, 4, 6, 8, 12, 16)}})
        drawn(figure)
    shown = [label.get_text() for label in ax.get_xticklabels() if label.get_text()]
    assert shown[0] == "0" and shown[-1] == "16/255" and len(ax.get_xticks()) == 10
