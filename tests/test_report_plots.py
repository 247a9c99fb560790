"""Figures: pooled bins, the number in the panel, files, determinism."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.bins import reliability_bins
from robustcal.report import diagrams, figures, parts, plots
from robustcal.report.report import gather, write_report
from robustcal.report.style import save, styled


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("plots") / "run", models=("clip", "ucat"), radii=("1/255", "2/255"), n=40)
    return gather([run.path], resamples=50)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    run = make_run(
        tmp_path_factory.mktemp("small") / "run", models=("clip",), datasets=("digits",), radii=("1/255",), n=20
    )
    return gather([run.path], resamples=20)


def texts(figure):
    inside = [t.get_text() for ax in figure.axes for t in (*ax.texts, ax.title)]
    return [line for text in [*inside, *(t.get_text() for t in figure.texts)] for line in text.splitlines()]


def test_pooled_bins_are_the_bins_of_all_samples():
    draw = np.random.default_rng(0)
    parts = [(draw.random(n), draw.random(n) < 0.6) for n in (50, 80, 1)]
    pooled = diagrams.pool([reliability_bins(c, k) for c, k in parts])
    whole = reliability_bins(np.concatenate([c for c, _ in parts]), np.concatenate([k for _, k in parts]))
    np.testing.assert_array_equal(pooled.counts, whole.counts)
    for name in ("confidence", "accuracy", "lower", "upper"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(whole, name), atol=1e-12)
    assert pooled.error() == pytest.approx(whole.error())
    with pytest.raises(ValueError, match="edges"):
        diagrams.pool([reliability_bins(*parts[0]), reliability_bins(*parts[0], bins=10)])


def test_the_panel_states_the_error_of_its_own_bins(results):
    cells = [c for c in results.cells if (c.model, c.attack, c.eps) == ("clip", "pgd", "1/255")]
    figure = plots.reliability_figure(results, "clip", "pgd")
    error = diagrams.pool([c.details.bins for c in cells]).error()
    assert f"ECE {100 * error:.1f} %" in texts(figure)
    assert len(figure.axes) == 6  # clean and two radii, each with its counts
    one = plots.cell_figure(results, cells[0])
    assert any(f"ECE {100 * cells[0].numbers.values['ece']:.1f} %" in text for text in texts(one))


def test_a_bar_is_the_accuracy_and_the_hatch_the_gap():
    from matplotlib.figure import Figure

    bins = reliability_bins(np.array([0.1, 0.9, 0.95, 0.92]), np.array([0, 1, 0, 1]), bins=10)
    axes = Figure().subplots()
    diagrams.reliability(axes, bins)
    bars, gaps = (c.get_paths() for c in axes.collections[:2])
    assert [p.vertices[:, 1].max() for p in bars] == pytest.approx([0.0, 1.0, 0.5])
    assert gaps[2].vertices[:, 1].min() == pytest.approx(0.5) and gaps[2].vertices[:, 1].max() == pytest.approx(0.935)
    assert axes.collections[1].get_hatch()  # the gap is told apart without colour


def test_every_figure_is_written_as_vector_and_png(small, tmp_path):
    paths = write_report(small, ["diagrams", "figures", "cells"], tmp_path)
    names = {p.relative_to(tmp_path).as_posix() for p in paths}
    for name in ("confidence", "entropy", "radius", "accuracy-ece", "risk-coverage"):
        assert {f"figures/{name}.{kind}" for kind in ("pdf", "svg", "png")} <= names
    assert {"reliability/clip-pgd.png", "reliability/clip-pgd.pdf", "reliability/clip-worst.png"} <= names
    assert {f"reliability/{cell.id}.png" for cell in small.cells} <= names
    for path in paths:
        start = path.read_bytes()[:5]
        assert start == {".png": b"\x89PNG\r", ".pdf": b"%PDF-", ".svg": b"<?xml"}[path.suffix]
    assert str(tmp_path).encode() not in (tmp_path / "figures" / "radius.svg").read_bytes()


def test_the_same_records_give_the_same_bytes(small, tmp_path):
    for folder in ("one", "two"):
        with styled():
            figure = plots.scatter_figure(small, "pgd", "1/255")
            save(figure, tmp_path / folder / "x")
    for kind in ("pdf", "svg", "png"):
        assert (tmp_path / "one" / f"x.{kind}").read_bytes() == (tmp_path / "two" / f"x.{kind}").read_bytes()


def test_drawing_leaves_the_callers_settings_alone(small, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.write_diagrams(small, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_figures_of_a_run_without_attacks(tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), attacks=("clean",), datasets=("digits",), n=5)
    results = gather([run.path], resamples=20)
    assert write_report(results, ["figures", "diagrams"], tmp_path / "out") == []
    assert plots.cell_figure(results, results.cells[0]).axes


def test_images_with_their_perturbation():
    clean = np.full((3, 8, 8), 0.5)
    attacked = clean + 0.02
    figure = plots.image_figure([("cat -> dog", clean, attacked), ("a -> b", clean, clean)], eps=0.02)
    stretched = figure.axes[2].images[0].get_array()
    assert np.allclose(stretched, 1.0) and np.allclose(figure.axes[5].images[0].get_array(), 0.5)
    assert figure.axes[0].images[0].get_array().shape == (8, 8, 3)


def test_file_names_are_safe():
    assert figures.file_name("../../etc/passwd") == "etc-passwd"
    assert figures.file_name("clip:ViT-B-32/openai-pgd steps=20") == "clip-ViT-B-32-openai-pgd-steps=20"
    assert figures.file_name("///") == "cell"


def test_figures_show_an_attack_whose_calibration_means_something():
    from types import SimpleNamespace

    def cell(attack, *flags):
        return SimpleNamespace(attack=attack, eps="1/255", flags=dict.fromkeys(flags))

    one = SimpleNamespace(cells=[cell("apgd"), cell("autoattack", "accuracy-only"), cell("worst", "accuracy-only")])
    assert parts.shown_attack(one, ["apgd", "autoattack", "worst"], "1/255") == "apgd"
    assert parts.shown_attack(one, ["autoattack", "worst"], "1/255") == "worst"
    assert parts.shown_attack(one, [], "1/255") is None


def test_figures_of_models_that_met_different_attacks(tmp_path):
    """Two runs as one: a model that an attack never met is left out of that attack's figures, not fatal."""
    runs = [
        make_run(tmp_path / model, models=(model,), attacks=("clean", attack), datasets=("digits",), n=20)
        for model, attack in (("clip", "pgd"), ("ucat", "fgsm"))
    ]
    results = gather([run.path for run in runs], resamples=20)
    for attack in results.values("attack"):
        plots.curve_figure(results, attack)
    figures.write_figures(results, tmp_path / "out", ("png",))
    assert (tmp_path / "out" / "figures" / "radius.png").is_file()


def test_a_model_without_a_single_cell_of_the_attack_is_no_line(tmp_path):
    runs = [
        make_run(tmp_path / model, models=(model,), attacks=attacks, datasets=("digits",), n=20)
        for model, attacks in (("clip", ("clean", "pgd")), ("ucat", ("fgsm",)))
    ]
    results = gather([run.path for run in runs], resamples=20)
    pgd = next(name for name in results.values("attack") if name.startswith("pgd"))
    names = [text.get_text() for text in plots.curve_figure(results, pgd).legends[0].texts]
    assert names == ["clip"]


def test_no_histogram_is_cut_off_by_the_height_of_another(tmp_path):
    """Panels share their height: the highest bar of all of them fits."""
    models = ("ucat", "tecoa", "clip")  # the first panel has the lowest bars
    run = make_run(tmp_path / "run", models=models, datasets=("digits",), radii=("1/255", "2/255"), n=20)
    results = gather([run.path], resamples=20)
    figure = plots.histogram_figure(results, "pgd", "2/255")
    shown = [ax for ax in figure.axes if ax.get_visible()]
    highest = max(value for ax in shown for patch in ax.patches for value in np.asarray(patch.get_data().values))
    assert len(shown) == 3 and all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= highest for ax in shown)
