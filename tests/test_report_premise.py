"""The layout `premise`: rank correlations against scipy, and uncertainty that falls while accuracy falls."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import spearmanr
from synthetic_run import make_run

from robustcal.metrics.rank import RankCorrelation
from robustcal.records.store import Run
from robustcal.report.correlations import UNCERTAINTIES, Correlations
from robustcal.report.course_plot import course_curves, course_figure
from robustcal.report.courses import courses
from robustcal.report.evaluate import evaluate
from robustcal.report.premise import SUPPRESSED, premise_tables, suppressed
from robustcal.report.report import text_report
from robustcal.report.stats import Replicates

SHARES = {"accuracy": 0.8, "entropy": 1.0, "confidence": 0.7}


@pytest.mark.parametrize("levels", [2, 4])
def test_rank_correlation_is_scipys_under_every_resample(levels):
    random = np.random.default_rng(levels)
    scores = np.round(random.standard_normal((levels, 30)) + np.arange(levels)[:, None] * 0.3, 1)  # with ties
    strengths = np.arange(levels)[:, None] ** 2
    weights = random.multinomial(30, np.full(30, 1 / 30), 5)
    found = RankCorrelation(scores, strengths)(weights)
    for row, value in zip(weights, found, strict=True):
        picked = np.repeat(np.arange(30), row)
        x, y = scores[:, picked].ravel(), np.broadcast_to(strengths, (levels, 30))[:, picked].ravel()
        assert value == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_rank_correlation_with_an_outcome_of_each_sample():
    random = np.random.default_rng(0)
    score, wrong = random.random((1, 50)), random.random((1, 50)) < 0.4
    weights = random.multinomial(50, np.full(50, 1 / 50), 3)
    for row, value in zip(weights, RankCorrelation(score, wrong)(weights), strict=True):
        picked = np.repeat(np.arange(50), row)
        assert value == pytest.approx(spearmanr(score[0, picked], wrong[0, picked]).statistic, abs=1e-12)
    assert np.isnan(RankCorrelation(score, np.ones((1, 50)))(weights)).all()


def test_the_interval_of_a_correlation_holds_the_truth():
    """Bivariate normal: rho_s = 6 / pi asin(r / 2); here against a median split, so only the coverage is judged."""
    random, held, rounds = np.random.default_rng(1), 0, 150
    big = random.standard_normal(400_000)
    truth = spearmanr(0.6 * big + 0.8 * random.standard_normal(400_000), big > 0).statistic
    for _ in range(rounds):
        y = random.standard_normal(80)
        rule = RankCorrelation((0.6 * y + 0.8 * random.standard_normal(80))[None], (y > 0)[None])
        draws = rule(random.multinomial(80, np.full(80, 1 / 80), 400))
        low, high = np.quantile(draws, [0.025, 0.975])
        held += low <= truth <= high
    assert held >= 0.88 * rounds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "r", models=("clip", "ucat"), attacks=("clean", "pgd", "cw"), radii=("1/255", "2/255"))


def test_the_table_has_the_mean_over_data_sets_of_scipys_correlation(run):
    results = evaluate([run], resamples=50)
    strength, wrong, _ = premise_tables(results)
    assert {row.labels[0] for row in strength.rows} == {"radius, pgd", "radius, cw"} and len(wrong.rows) == 2 * 5
    cells = {(c.dataset, c.attack, c.eps): run.read(c.id) for c in run.cells() if c.model == "ucat"}
    steps = [("clean", "0"), ("pgd", "1/255"), ("pgd", "2/255")]
    for u in UNCERTAINTIES:
        wanted = [
            spearmanr(np.concatenate([u.sign * cells[(d, *s)][u.column] for s in steps]), np.repeat([0, 1, 2], 96)).statistic
            for d in ("digits", "letters")
        ]
        assert strength.numbers()["radius, pgd", "ucat"]["", u.title].value == pytest.approx(np.mean(wanted), abs=1e-9)
        wanted = [spearmanr(u.sign * cells[d, "pgd", "1/255"][u.column], ~cells[d, "pgd", "1/255"]["correct"]).statistic
                  for d in ("digits", "letters")]  # fmt: skip
        assert wrong.numbers()["pgd", "1/255", "ucat"]["", u.title].value == pytest.approx(np.mean(wanted), abs=1e-9)
    assert "-log α₀" in strength.caption and "premise" in text_report([run], "premise")


def numbers(accuracy, entropy, samples="a"):
    random = np.random.default_rng(0)  # the same draws for all: paired
    hits = (np.arange(200) < 200 * accuracy,)
    moved = {"accuracy": accuracy, "entropy": entropy}
    draws = {name: value + 0.01 * random.standard_normal(500) for name, value in moved.items()}
    draws["entropy"] = draws["entropy"] + 0.005 * np.random.default_rng(int(1000 * entropy)).standard_normal(500)
    return Replicates(moved, draws, {}, samples=((0, samples, 200),), outcomes={"accuracy": hits})


def test_uncertainty_is_suppressed_where_it_falls_with_the_accuracy():
    entropy = UNCERTAINTIES[1]
    hump = [numbers(0.8, 0.5), numbers(0.5, 0.9), numbers(0.2, 0.3)]
    fall = suppressed(hump, entropy)
    assert (fall.before, fall.after, fall.accuracy, fall.uncertainty) == (1, 2, (0.5, 0.2), (0.9, 0.3))
    assert suppressed([numbers(0.8, 0.5), numbers(0.5, 0.9)], entropy) is None  # the premise holds
    assert suppressed([numbers(0.5, 0.9), numbers(0.5, 0.3)], entropy) is None  # accuracy stays
    assert suppressed([numbers(0.3, 0.9), numbers(0.8, 0.3)], entropy) is None  # surer and rightly so


def test_what_is_suppressed_is_flagged_and_told(run, tmp_path, by_hand):
    """A model whose confidence under attack is that of certainty."""
    known = {c.id: c for c in run.cells()}
    shutil.copytree(run.path, tmp_path / "r")
    changed = Run.open(tmp_path / "r")
    for cell in known.values():
        if (cell.model, cell.attack, cell.eps) == ("ucat", "pgd", "2/255"):
            rows = {name: list(column) if name == "flags" else column for name, column in run.read(cell.id).items()}
            rows["entropy"] = (rows["entropy"] * 0.01).astype(np.float32)
            for path in (tmp_path / "r" / "records" / cell.id).glob("*.parquet"):
                path.unlink()
            changed.write_shard(cell.id, 0, rows)
    strength, *_ = premise_tables(evaluate([Run.open(tmp_path / "r")], resamples=100))
    flagged = {(labels, title) for labels, row in strength.numbers().items() for (_, title), entry in row.items() if SUPPRESSED in entry.flags}
    assert (("radius, pgd", "ucat"), "entropy") in flagged
    assert any(remark.startswith("ucat, radius, pgd") and "entropy falls from" in remark for remark in strength.remarks)
    assert strength.flags[SUPPRESSED]


def test_shifts_are_ordered_by_severity(tmp_path):
    """Cells of kind `shift` that differ in their severity alone are one course, whatever the order they ran in."""
    attacks = ("clean", *(f"corruption:fog:severity={s}" for s in (5, 1, 3)))
    make_run(tmp_path / "r", models=("clip",), attacks=attacks, datasets=("digits",), radii=("0",), n=24)
    for file in (tmp_path / "r" / "records").glob("*/cell.json"):
        cell = json.loads(file.read_text())
        if cell["kind"] != "clean":
            file.write_text(json.dumps(cell | {"kind": "shift"}))
    results = evaluate([Run.open(tmp_path / "r")], resamples=20)
    (course,) = courses(results)
    assert course.names == ("clean", "1", "3", "5") and course.strengths == (0, 1, 3, 5) and course.title == "severity, corruption:fog"
    assert Correlations(results, 20).with_strength("clip", "digits", course) is not None


def test_the_figure_draws_what_the_table_is_about(run):
    results = evaluate([run], resamples=20)
    course = next(course for course in courses(results) if course.title == "radius, pgd")
    ax = course_curves(results, course, "entropy")
    assert ax.get_xlabel() == "radius, pgd" and [t.get_text() for t in ax.get_xticklabels()] == ["clean", "1/255", "2/255"]
    drawn = ax.containers[0].lines[0].get_ydata()
    wanted = np.mean([[results.get("clip", d, *step).numbers.values["entropy"] for step in course.steps] for d in ("digits", "letters")], axis=0)
    np.testing.assert_allclose(drawn, wanted)
    figure = course_figure(results, course, "au")
    assert len(figure.axes) == 2 and figure.axes[0] is course_curves(results, course, "accuracy", figure.axes[0])
