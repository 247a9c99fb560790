"""Bootstrap intervals, paired comparisons, corrections and marks."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp
from synthetic_run import records as invented

from robustcal.metrics.weighted import Means, Weighted
from robustcal.registry import ROOT, Plugin, register
from robustcal.report import catalogue, stats
from robustcal.report.proportions import average_limits
from robustcal.report.report import check_request
from robustcal.report.resample import Resamples
from robustcal.types import UserError


def rows(n=300, classes=10, pull=0.5, seed=0):
    return {name: np.asarray(column) for name, column in invented(n, classes, pull, 60, seed).items()}


def world(n, seed, slope=0.8):
    """Confidences and correctness whose true calibration error is known: accuracy = slope * confidence."""
    draw = np.random.default_rng(seed)
    confidence = 1 - 0.9 * draw.beta(0.5, 1.5, n)
    return {"confidence": confidence, "correct": draw.random(n) < slope * confidence}


# -- resampling --------------------------------------------------------------------------------------------------
def test_every_resample_has_n_samples_and_follows_seed_and_ids():
    ids = [f"set/test/{i}" for i in range(500)]
    counts = np.concatenate(list(Resamples.of(ids, 200, 0).chunks()))
    assert counts.shape == (200, 500) and (counts.sum(1) == 500).all()
    assert np.array_equal(counts, np.concatenate(list(Resamples.of(ids, 200, 0).chunks())))
    assert not np.array_equal(counts, np.concatenate(list(Resamples.of(ids, 200, 1).chunks())))
    assert not np.array_equal(counts, np.concatenate(list(Resamples.of(ids[::-1], 200, 0).chunks())))
    assert counts.var() == pytest.approx(1, abs=0.05)  # multinomial counts are nearly Poisson(1)


def test_kept_counts_equal_fresh_ones():
    shared = Resamples(2000, 100, 3)
    first = np.concatenate(list(shared.chunks()))
    assert np.array_equal(first, np.concatenate(list(shared.chunks())))
    assert len(list(shared.chunks())) > 0


def test_additive_weighted_and_plain_forms_agree():
    data = rows()

    def plain(records):
        return {"value": float(np.mean(records["entropy"]) ** 2)}

    def additive(records):
        return Means(np.asarray(records["entropy"], float)[:, None], lambda means: {"value": means[..., 0] ** 2})

    def weighted(records):
        entropy = np.asarray(records["entropy"], float)
        return Weighted(lambda w: {"value": (w @ entropy / w.sum(1)) ** 2}, len(entropy))

    found = [stats.replicates(data, [metric], 50) for metric in (plain, additive, weighted)]
    for other in found[1:]:
        assert other.values["value"] == pytest.approx(found[0].values["value"])
        assert np.allclose(other.draws["value"], found[0].draws["value"], rtol=1e-6)


@pytest.mark.parametrize("metric", stats.CELL_METRICS + ("kolmogorov", "smooth", "decomposition", "classwise"))
def test_evaluation_under_weights_equals_evaluation_of_the_resample(metric):
    """The vectorised path and the metric called on repeated rows are the same function."""
    data = rows(120)
    function = stats.metric_function(metric)
    value = function(data)
    counts = next(Resamples(120, 3, 7).chunks())
    for row in counts:
        index = np.repeat(np.arange(120), row.astype(int))
        again = function({name: np.asarray(column)[index] for name, column in data.items()})
        if isinstance(value, Weighted):
            found = {name: x[0] for name, x in value.evaluate(row[None]).items()}
        else:
            found = value.combine(np.asarray(row[None] @ value.columns)[0] / 120)
        for name in found:
            assert found[name] == pytest.approx(again[name], abs=2e-6), name


def test_every_metric_has_finite_limits_around_or_below_its_value():
    clean, attacked = rows(400, pull=0.0), rows(400, pull=0.8)
    shared = Resamples.of(attacked["id"], 200)
    for entry in register.metric.entries():
        for name, (value, lo, hi) in stats.summarise(attacked, [entry.name], shared, clean=clean).items():
            assert math.isfinite(value) and lo <= hi, name
            if not any(part in name for part in ("ece", "mce", "ks", "confidence", "reliability", "brier")):
                assert lo - 1e-9 <= value <= hi + 1e-9, name


def test_metrics_that_need_clean_records_are_left_out_without_them():
    data = rows(60)
    assert set(stats.summarise(data, ["accuracy", "shift", "detection"], 20)) == {"accuracy"}
    assert "au_shift" in stats.summarise(data, ["shift"], 20, clean=data)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_almost_no_records_make_no_crash(n):
    data = {name: column[:n] for name, column in rows(5).items()}
    found = stats.summarise(data, resamples=20)
    assert {"accuracy", "ece", "nll", "au"} <= set(found)
    assert all(math.isnan(item.value) == (n == 0) for item in found.values())


def test_results_do_not_depend_on_which_metrics_stand_beside():
    data = rows()
    alone, together = stats.summarise(data, ["calibration"], 100), stats.summarise(data, resamples=100)
    assert alone["ece"] == pytest.approx(together["ece"], abs=1e-9)


def test_parameters_of_a_spec_reach_the_metric():
    data = rows()
    ten, fifteen = (stats.summarise(data, [f"calibration:bins={b}"], 10)["ece"].value for b in (10, 15))
    assert ten != fifteen


# -- intervals ---------------------------------------------------------------------------------------------------
def test_accuracy_limits_have_width_at_zero():
    data = {**rows(100), "correct": np.zeros(100, bool)}
    value, lo, hi = stats.summarise(data, ["accuracy"], 50)["accuracy"]
    assert (value, lo) == (0, 0) and 0.02 < hi < 0.06
    assert hi == pytest.approx(binomtest(0, 100).proportion_ci(method="wilson").high)


def covered(n, slope, runs=60):
    """Share of simulated runs in which the interval of ece holds the true error, and plain percentiles do."""
    truth = (1 - slope) * (1 - 0.9 * 0.25)
    test, plain = 0, 0
    for seed in range(runs):
        data = world(n, seed, slope)
        found = stats.metric_function("calibration")({**data, "dirichlet_confidence": data["confidence"]})
        shared = Resamples(n, 200, seed)
        resampled = np.concatenate([counts @ found.columns / n for counts in shared.chunks()])
        draws = found.drawn(resampled.astype(np.float64))["ece"]
        lo, hi = np.quantile(draws, [0.025, 0.975])
        test += lo <= truth <= hi
        lo, hi = np.quantile(found.combine(resampled)["ece"], [0.025, 0.975])
        plain += lo <= truth <= hi
    return test / runs, plain / runs


def test_ece_interval_covers_the_true_error():
    for n, slope in [(300, 0.8), (1000, 1.0), (1000, 0.9)]:
        share, plain = covered(n, slope)
        assert share >= 0.88, (n, slope, share)  # 0.95 less two and a half standard errors of 60 runs
        if slope == 1.0:
            assert plain < 0.05  # what percentiles of the plain bootstrap do for a calibrated model


def test_debiased_error_is_nearer_the_truth_than_the_plain_one():
    for slope in (1.0, 0.95, 0.8):
        truth, plain, debiased = (1 - slope) * (1 - 0.9 * 0.25), [], []
        for seed in range(100):
            data = world(500, seed, slope)
            value = stats.metric_function("calibration")(data)
            plain.append(abs(value["ece"] - truth))
            debiased.append(abs(value["ece_debiased"] - truth))
        assert np.mean(debiased) < np.mean(plain), slope


def test_the_page_counts_the_rows_of_the_simulation():
    """What docs/metrics.md says of coverage and of the debiased error is what results/interval_coverage.csv shows."""
    root = Path(__file__).resolve().parents[1]
    text = " ".join((root / "docs/metrics.md").read_text().split())
    rows = list(csv.DictReader((root / "results/interval_coverage.csv").open()))
    cells = [row for row in rows if row["kind"] == "cell" and row["value"] == "ece"]
    held = [float(row["covers"].rstrip("%")) for row in cells]
    inside, below, above = (sum(map(rule, held)) for rule in (lambda x: 93 <= x <= 97, lambda x: x < 93, lambda x: x > 97))
    assert f"Of these {len(cells)} lines {inside} are within 93 to 97 %, {below} below and {above} above" in text
    assert f"their mean is {np.mean(held):.1f} %" in text and min(held) >= 85
    nearer = {}
    for n in ("128", "500"):
        gains = [float(row["error of ece"]) - float(row["of ece_debiased"]) for row in cells if row["n"] == n]
        nearer[n] = (sum(gain > 0 for gain in gains), len(gains))
    first, second = nearer["128"], nearer["500"]
    assert f"in {first[0]} of the {first[1]} lines at n = 128 and in {second[0]} of the {second[1]} at n = 500" in text
    assert {row["kind"] for row in rows} == {"cell", "average", "h", "difference", "ratio"}


def test_the_two_parts_of_ece_have_intervals_of_their_own():
    """A part that is small beside the other is not taken for noise: its interval holds the truth, and has a width."""
    over = under = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        confidence = draw.uniform(0.1, 1, 400)
        truth = np.where(confidence > 0.8, np.minimum(confidence + 0.1, 1), confidence - 0.1)
        data = {"confidence": confidence, "correct": draw.random(400) < truth}
        found = stats.summarise(data, ["calibration"], Resamples(400, 200, seed))
        value, lo, hi = found["underconfidence"]
        under += lo <= 0.015 / 0.9 <= hi  # 0.1 up to 0.9 and 1 - c above, times the density, integrated from 0.8
        over += found["overconfidence"].lo <= 0.07 / 0.9 <= found["overconfidence"].hi
        assert hi > lo, (seed, value, lo, hi)
    assert over >= 34 and under >= 34


def test_a_luckily_small_error_is_no_proof_of_calibration():
    """The interval of an error far below what noise makes begins at 0 and still has a width."""
    confidence = np.repeat(np.linspace(0.1, 0.95, 12), 20)
    correct = np.concatenate([np.arange(20) < round(20 * c) for c in confidence[::20]])
    value, lo, hi = stats.summarise({"confidence": confidence, "correct": correct}, ["calibration"], 200)["ece"]
    assert value < 0.02 and lo == 0 and hi > 0.005


def hits(rows, name="set"):
    """A cell of samples that are right (1) or wrong (0)."""
    return stats.replicates({"id": [f"{name}/{i}" for i in range(len(rows))], "correct": np.array(rows, bool)}, ["accuracy"], 50)


def test_an_average_of_accuracies_has_score_limits():
    """Of equal sets all at 0 they are Wilson's for the samples of all; copies of one set tell no more than one."""
    none = np.zeros(128)
    _, lo, hi = stats.average([hits(none, "a"), hits(none, "b")]).interval("accuracy")
    assert (lo, hi) == (0, pytest.approx(binomtest(0, 256).proportion_ci(method="wilson").high))
    alone, twice = (stats.average([hits(none)] * k).interval("accuracy") for k in (1, 2))
    assert twice == pytest.approx(alone)
    one = stats.average([hits(np.arange(128) % 3 == 0)] * 2).interval("accuracy")
    assert one == pytest.approx(hits(np.arange(128) % 3 == 0).interval("accuracy"))


def test_limits_of_average_accuracies_cover_the_truth():
    draw = np.random.default_rng(0)
    worlds = [([0.005] * 16, [128] * 16), ([0.9, 0.1, 0.5], [128, 500, 60]), ([0.05] * 4, [20] * 4), ([0.01, 0], [128] * 2),
              ([0.002] * 4, [1000] * 4), ([0.99, 0.3], [20] * 2)]  # fmt: skip
    for rates, sizes in worlds:
        covered = 0
        for _ in range(300):
            found = [np.arange(n) < draw.binomial(n, rate) for rate, n in zip(rates, sizes)]
            lo, hi = average_limits(found, [(0, str(i), n) for i, n in enumerate(sizes)])
            covered += lo <= np.mean(rates) <= hi
        assert covered >= 0.92 * 300, (rates, covered)  # 0.95 less two and a half standard errors


# -- comparisons -------------------------------------------------------------------------------------------------
def test_paired_differences_are_narrower_than_unpaired_ones():
    base = rows(1000)
    other = {**base, "correct": base["correct"] ^ (np.arange(1000) % 100 == 0)}
    paired = stats.compare(base, other, ["accuracy"])["accuracy"]
    elsewhere = stats.replicates(other, ["accuracy"], Resamples(1000, 1000, 99))
    apart = stats.difference(stats.replicates(base, ["accuracy"]), elsewhere, "accuracy")
    assert paired.value == apart.value == pytest.approx(other["correct"].mean() - base["correct"].mean())
    assert paired.hi - paired.lo < 0.5 * (apart.hi - apart.lo)


def test_comparison_needs_the_same_samples():
    data = rows(50)
    with pytest.raises(ValueError, match="same samples"):
        stats.compare(data, {**data, "id": data["id"][::-1]})


def test_identical_cells_do_not_differ():
    data = rows(100)
    assert all(item == (0, 0, 0, 1) for item in stats.compare(data, data, resamples=50).values())


def test_p_values_are_uniform_when_nothing_differs():
    small = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        shared = draw.random(400) < 0.7
        a, b = ({"correct": np.where(draw.random(400) < 0.3, draw.random(400) < 0.7, shared)} for _ in range(2))
        one, other = (stats.replicates(x, ["accuracy"], Resamples(400, 200, seed)) for x in (a, b))
        small.append(stats.difference(one, other, "accuracy").p)
    assert 0.01 <= np.mean(np.array(small) < 0.05) <= 0.11
    assert 0.4 <= np.mean(small) <= 0.6


@pytest.mark.parametrize("gains, losses, n", [(1, 0, 1), (3, 0, 3), (5, 0, 5), (4, 0, 128), (9, 2, 128), (7, 7, 20)])
def test_accuracies_of_the_same_samples_have_the_exact_mcnemar_test(gains, losses, n):
    first, second = np.zeros(n), np.zeros(n)
    second[:gains], first[gains : gains + losses] = 1, 1
    exact = binomtest(gains, gains + losses).pvalue
    assert stats.difference(hits(first), hits(second), "accuracy").p == pytest.approx(exact)
    if n > 1:  # sets of equal size are pooled
        halves = [[hits(x[: n // 2], "a"), hits(x[n // 2 :], "b")] for x in (first, second)]
        found = stats.difference(*map(stats.average, halves), "accuracy").p
        assert found == pytest.approx(exact) if n % 2 == 0 else found >= 0.9 * exact


def test_sets_of_other_sizes_weigh_otherwise_and_stay_wary():
    """Against all ways to flip the signs of the discordant samples."""
    draw = np.random.default_rng(3)
    for _ in range(20):
        pairs = [(draw.random(n) < 0.5, draw.random(n) < 0.5) for n in (4, 9)]
        scores = np.concatenate([(b.astype(float) - a) / len(a) for a, b in pairs])
        scores = scores[scores != 0]
        flips = np.array(list(itertools.product((-1, 1), repeat=len(scores)))) @ np.abs(scores)
        exact = np.mean(np.abs(flips) >= abs(scores.sum()) - 1e-12)
        cells = [[hits(pair[side], str(i)) for i, pair in enumerate(pairs)] for side in (0, 1)]
        found = stats.difference(*map(stats.average, cells), "accuracy").p
        assert found >= 0.8 * exact - 0.02, (found, exact)


def test_no_p_value_is_zero_where_draws_do_not_vary():
    def cell(confidence, name="set"):
        data = {"id": [f"{name}/{i}" for i in range(len(confidence))], "confidence": np.array(confidence)}
        return stats.replicates({**data, "correct": np.zeros(len(confidence), bool)}, [mean_confidence], 200)

    def mean_confidence(records):
        return Means(np.asarray(records["confidence"], float)[:, None], lambda means: {"value": means[..., 0]})

    for few in (1, 4, stats.FEWEST - 1):  # no claim
        assert math.isnan(stats.difference(cell([0.2] * few), cell([0.9] * few), "value").p)
    assert stats.difference(cell([0.2] * 99), cell([0.9] * 99), "value").p == pytest.approx(1 / 201)
    assert math.isnan(stats.difference(hits([0], "a"), hits([1], "b"), "accuracy").p)  # not the same samples
    many = np.ones(3000)
    assert 0 < stats.difference(hits(0 * many), hits(many), "accuracy").p < 1e-300


def equally_calibrated(n, seed, slopes=(1.0, 1.0)):
    """Two models on the same samples, alike on seven of ten, whose accuracy is slope * confidence."""
    draw = np.random.default_rng(seed)
    first, second = (1 - 0.9 * draw.beta(0.5, 1.5, n) for _ in range(2))
    same, luck, other = draw.random(n) < 0.7, draw.random(n), draw.random(n)
    pairs = (first, luck), (np.where(same, first, second), np.where(same, luck, other))
    return [{"confidence": c, "correct": k < slope * c} for (c, k), slope in zip(pairs, slopes)]


def test_p_values_of_ece_keep_their_level_and_see_differences():
    def share(slopes):
        shared = [[stats.replicates(x, ["calibration"], Resamples(400, 100, seed)) for x in equally_calibrated(400, seed, slopes)]
                  for seed in range(40)]  # fmt: skip
        return np.mean([stats.difference(*pair, "ece").p < 0.05 for pair in shared])

    assert share((1.0, 1.0)) <= 0.10
    assert share((0.95, 0.95)) <= 0.12
    assert share((1.0, 0.85)) >= 0.6


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]).tolist() == pytest.approx([1.0, 1.0])
    found = stats.holm([0.01, math.nan, 0.02])
    assert math.isnan(found[1]) and found[[0, 2]].tolist() == pytest.approx([0.02, 0.02])
    assert stats.holm([]).tolist() == []


def replicate(value, spread, seed):
    return stats.Replicates(
        {"accuracy": value, "gap": value}, {k: value + spread * np.random.default_rng(seed).standard_normal(1000)
                                            for k in ("accuracy", "gap")}, {}
    )  # fmt: skip


def test_bold_needs_significance():
    cells = {"a": replicate(0.5, 0.01, 0), "b": replicate(0.6, 0.01, 1), "c": replicate(0.3, 0.01, 2)}
    assert stats.mark(cells, "accuracy") == {"a": "second", "b": "best", "c": ""}
    near = {**cells, "a": replicate(0.595, 0.01, 0)}
    assert stats.mark(near, "accuracy") == {"a": "second", "b": "best-not-significant", "c": ""}
    assert stats.mark(cells, "accuracy", direction="lower")["c"] == "best"
    assert stats.mark({"a": cells["a"]}, "accuracy") == {"a": "best-not-significant"}
    missing = {**cells, "d": stats.Replicates({"accuracy": math.nan}, {"accuracy": np.full(1000, np.nan)}, {})}
    assert stats.mark(missing, "accuracy")["b"] == "best" and stats.mark(missing, "accuracy")["d"] == ""
    assert set(stats.mark(cells, "entropy").values()) == {""}


def test_a_gap_is_best_nearest_to_zero():
    cells = {"a": replicate(-0.02, 0.002, 0), "b": replicate(0.1, 0.002, 1), "c": replicate(-0.2, 0.002, 2)}
    assert stats.direction_of("gap") == "zero"
    assert stats.mark(cells, "gap") == {"a": "best", "b": "second", "c": ""}


def test_average_and_harmonic_carry_their_uncertainty():
    cells = [replicate(0.8, 0.02, 0), replicate(0.4, 0.02, 1)]
    mean = stats.average(cells)
    assert mean.values["accuracy"] == pytest.approx(0.6)
    found = mean.interval("accuracy")
    assert found.hi - found.lo == pytest.approx(2 * 1.96 * 0.02 / math.sqrt(2), rel=0.1)
    value, lo, hi = stats.harmonic(mean, stats.average([replicate(0.2, 0.02, 2)])).interval("h")
    assert value == pytest.approx(2 * 0.6 * 0.2 / 0.8) and lo < value < hi


def test_seed_spread_is_the_t_interval():
    found = stats.seed_spread([0.5, 0.52, 0.54, math.nan])
    exact = ttest_1samp([0.5, 0.52, 0.54], 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.52) and found.seeds == 3 and found.deviation == pytest.approx(0.02)
    assert (found.lo, found.hi) == pytest.approx((exact.low, exact.high))
    assert math.isnan(stats.seed_spread([0.5]).lo) and stats.seed_spread([]).seeds == 0


# -- declarations ------------------------------------------------------------------------------------------------
def test_every_returned_name_of_the_cell_metrics_is_declared():
    declared = catalogue.declarations()
    for metric in stats.CELL_METRICS + ("adaptive", "selective", "decomposition", "classwise"):
        for name in stats.metric_function(metric)(rows(50)):
            assert name in declared, name
    assert stats.direction_of("ece") == "lower" and catalogue.unit_of("ece") == "fraction"
    assert catalogue.unit_of("nll") == "nats" and stats.direction_of("no_such_name") == "none"


def test_columns_of_metrics_suffice():
    data = rows(60)
    others = ("adaptive", "selective", "decomposition", "classwise", "kolmogorov", "smooth")
    for metric in stats.CELL_METRICS + others:
        names = catalogue.columns_of([metric])
        assert dict(stats.metric_function(metric)({name: data[name] for name in names if name in data}))
    assert "top_logits" not in catalogue.columns_of(stats.CELL_METRICS) and "id" in catalogue.columns_of(stats.CELL_METRICS)
    assert catalogue.columns_of(["accuracy", lambda records: {}]) is None


# -- parameters --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", ["calibration:bins=0", "calibration:bins=-3", "adaptive:bins=0", "classwise:bins=-1", "decomposition:bins=0"])
def test_a_bad_parameter_is_the_mistake_of_whoever_gave_it(spec):
    with pytest.raises(UserError, match=f"metric '{spec}' .*bins must be 1 or more"):
        stats.summarise(rows(20), [spec], 5)


def test_what_fails_with_the_defaults_too_is_no_mistake_of_the_user(monkeypatch):
    def broken(records, *, bins: int = 15):
        raise ValueError("a mistake of the metric")

    ours = str(ROOT / "metrics" / "broken.py")
    monkeypatch.setitem(register.metric.plugins, "broken", Plugin("metrics", "broken", broken, ours))
    for spec in ("broken", "broken:bins=5"):
        with pytest.raises(ValueError, match="a mistake of the metric"):
            stats.summarise(rows(20), [spec], 5)


# -- a metric of one's own ---------------------------------------------------------------------------------------
def added(monkeypatch, make, **meta):
    monkeypatch.setitem(register.metric.plugins, "my-own", Plugin("metrics", "my-own", make, __file__, meta))


def test_a_metric_may_return_one_number(monkeypatch):
    data = rows(40)
    added(monkeypatch, lambda records, *, above=0.5: np.mean(records["confidence"] > above))

    def mean_confidence(records):
        return np.asarray(records["confidence"].mean())  # without dimensions

    found = stats.summarise(data, ["my-own:above=0.4", mean_confidence], 20)
    assert found["my_own"].value == pytest.approx((data["confidence"] > 0.4).mean())
    assert found["mean_confidence"].value == pytest.approx(data["confidence"].mean(), rel=1e-6)
    assert found["mean_confidence"].lo < found["mean_confidence"].value < found["mean_confidence"].hi


@pytest.mark.parametrize("make, said", [
    (lambda records: None, "returned a NoneType"),
    (lambda records: "0.5", "returned a str"),
    (lambda records: records["confidence"], "returned a ndarray"),
    (lambda records: {"x": None}, "returned a NoneType as 'x'"),
    (lambda records: records["sure"], "failed: KeyError: 'sure'"),
    (lambda records: 1 // 0, "failed: ZeroDivisionError"),
    (lambda records: records["confidence"].sort(), "failed: ValueError: .*read-only; a metric changes copies"),
])  # fmt: skip
def test_a_mistake_in_a_metric_of_ones_own_is_one_line_that_names_it(make, said, monkeypatch):
    data = rows(20)
    before = data["confidence"].copy()
    added(monkeypatch, make)
    with pytest.raises(UserError, match=f"metric 'my-own' {said}") as error:
        stats.summarise(data, ["my-own"], 5)
    assert "\n" not in str(error.value) and (data["confidence"] == before).all() and data["confidence"].flags.writeable


@pytest.mark.parametrize("meta, said", [
    ({"direction": "up"}, "direction 'up'; there are: 'higher', 'lower', 'zero', 'none'"),
    ({"unit": {"a": "percent"}}, "unit 'percent'; there are: 'fraction', 'nats'"),
])  # fmt: skip
def test_directions_and_units_are_those_that_reports_know(meta, said, monkeypatch):
    added(monkeypatch, lambda records: 1.0, **meta)
    with pytest.raises(UserError, match=f"metric 'my-own' declares the {said}"):
        check_request(wanted=["my-own"])
    for entry in register.metric.entries():
        if entry.kind == "file":
            stats.metric_function(entry.name)
