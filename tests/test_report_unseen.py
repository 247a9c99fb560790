"""Intervals and tests where an attack succeeds completely, of few samples, and over several data sets."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from synthetic_run import records as invented

from robustcal.metrics.weighted import Means, Weighted
from robustcal.report import stats
from robustcal.report.proportions import average_limits, shares_of
from robustcal.report.resample import Resamples
from robustcal.report.unseen import Pseudo, Twin, displacements
from robustcal.types import UserError


def cell(confidence, correct, name="set", metrics=("accuracy", "calibration"), resamples=1000):
    ids = [f"{name}/{i}" for i in range(len(confidence))]
    records = {"id": ids, "confidence": np.asarray(confidence, float), "correct": np.asarray(correct, bool)}
    return stats.replicates(records, list(metrics), resamples)


def broken(n, rate, seed, name="set", **more):
    """A cell of an attack that succeeds: confidence near 1, few right."""
    draw = np.random.default_rng(seed)
    return cell(1 - 1e-3 * draw.beta(0.5, 2, n), draw.random(n) < rate, name, **more)


# -- one cell ----------------------------------------------------------------------------------------------------
def test_the_ece_of_a_broken_cell_is_as_uncertain_as_its_accuracy():
    """40 samples at 38 %, none right: what the accuracy can be, up to 8.8 %, the ECE can lie below the confidence."""
    found = cell(np.random.default_rng(0).normal(0.383, 0.006, 40), np.zeros(40))
    most = found.interval("accuracy").hi
    assert most == pytest.approx(binomtest(0, 40).proportion_ci(method="wilson").high) == pytest.approx(0.0876, abs=1e-3)
    for name in ("ece", "ece_debiased", "ece_l2", "mce", "overconfidence", "gap"):
        value, lo, hi = found.interval(name)
        assert value == pytest.approx(0.383, abs=0.003), name
        assert lo == pytest.approx(value - most, abs=0.012), name
        assert value < hi < value + 0.005, name


@pytest.mark.parametrize("n", [2, 3, 5])
def test_averages_of_few_samples_stay_in_the_range_of_their_number(n):
    cells = [cell(np.linspace(0.1, 0.9, n), np.arange(n) % 2 == k % 2, f"set{k}") for k in range(3)]
    mean = stats.average(cells)
    for name in ("accuracy", "ece", "mce", "overconfidence", "underconfidence"):
        value, lo, hi = mean.interval(name)
        assert 0 <= lo <= value <= hi <= 1 and mean.draws[name].min() >= 0 and mean.draws[name].max() <= 1, name


def test_two_samples_say_little():
    _, lo, hi = cell([0.204, 0.222], [0, 0]).interval("ece")
    assert lo == 0 and hi > 0.3
    confidence = cell([0.204, 0.222], [0, 0]).interval("confidence")
    assert confidence.hi - confidence.lo > 0.1  # Student's t with one degree of freedom, not the range of two numbers
    assert math.isnan(cell([0.2], [0]).interval("ece").lo)


@pytest.mark.parametrize("rate, n", [(0.0, 100), (0.005, 200), (0.02, 200)])
def test_intervals_of_broken_cells_cover_the_truth(rate, n):
    truth = 1 - 1e-3 * 0.2 - rate
    found = [broken(n, rate, seed, resamples=Resamples(n, 200, seed % 5)).interval("ece") for seed in range(80)]
    covered = np.mean([lo <= truth <= hi for _, lo, hi in found])
    assert covered >= 0.88, covered  # 0.95 less two and a half standard errors
    assert np.mean([hi - lo for _, lo, hi in found]) < 8 / n + 4 * math.sqrt(rate / n)  # as narrow as the score interval, nearly


def test_pseudo_samples_have_wilsons_quantiles_and_the_moments_of_the_score():
    records = {"correct": np.zeros(40, bool)}
    step = Pseudo.of(records, 200_000, "").of_share(0.0)
    for level in (0.8, 0.95, 0.99):
        z = norm.ppf((1 + level) / 2)
        assert np.quantile(step, (1 + level) / 2) == pytest.approx(z**2 / (40 + z**2), rel=0.03)
    right = Pseudo.of({"correct": np.zeros(10**6, bool)}, 200_000, "").right
    assert right.mean() == pytest.approx(1 / 2, rel=0.02) and right.var() == pytest.approx(5 / 4, rel=0.05)


def test_cells_that_differ_have_independent_pseudo_samples_and_equal_ones_the_same():
    one, same = (Pseudo.of({"correct": np.zeros(50, bool), "confidence": np.full(50, 0.9)}, 1000, "key") for _ in range(2))
    other = Pseudo.of({"correct": np.zeros(50, bool), "confidence": np.full(50, 0.8)}, 1000, "key")
    assert np.array_equal(one.right, same.right) and abs(np.corrcoef(one.right, other.right)[0, 1]) < 0.1


def test_limits_of_a_share_cover_every_rate():
    """Exactly: the chance of all numbers of hits whose limits hold the rate."""
    for n in (20, 100, 500):
        limits = np.array([average_limits([np.arange(n) < k], [(0, "", n)]) for k in range(n + 1)])
        for rate in np.geomspace(0.02 / n, 0.5, 200):
            inside = (limits[:, 0] <= rate) & (rate <= limits[:, 1])
            assert binom.pmf(np.arange(n + 1)[inside], n, rate).sum() >= 0.885, (n, rate)
        assert (limits[:, 0] <= np.arange(n + 1) / n).all() and np.allclose(limits, 1 - limits[::-1, ::-1], atol=1e-9)


# -- other metrics -----------------------------------------------------------------------------------------------
def rows(n=60, seed=0):
    return {name: np.asarray(column) for name, column in invented(n, 10, 0.5, 60, seed).items()}


def test_a_twin_is_the_same_sample_with_two_classes_changed_over():
    """Against a loop that swaps the logits themselves; and the twin of a right sample's twin is the sample."""
    data = rows()
    twin = Twin(data)
    for i in range(60):
        logits = np.full(10, -np.inf)
        logits[data["top_classes"][i]] = data["top_logits"][i]
        label, first = data["label"][i], data["prediction"][i]
        other = label if label != first else data["top_classes"][i][1]
        logits[[first, other]] = logits[[other, first]]
        p = np.exp(logits - np.logaddexp.reduce(logits))
        assert twin["prediction"][i] == logits.argmax() and twin["correct"][i] == (logits.argmax() == label)
        assert twin["correct"][i] != data["correct"][i]
        assert twin["label_probability"][i] == pytest.approx(p[label], rel=1e-3, abs=1e-6)
        assert twin["brier"][i] == pytest.approx(((p - np.eye(10)[label]) ** 2).sum(), abs=1e-3)
    again, right = Twin({name: twin[name] for name in data}), data["correct"]
    assert np.array_equal(again["correct"], right) and np.array_equal(again["prediction"][right], data["prediction"][right])
    assert np.allclose(again["label_probability"][right], data["label_probability"][right], atol=1e-5)


def test_every_way_to_write_a_metric_sees_the_same_unseen_outcomes():
    data = {**rows(40), "correct": np.zeros(40, bool)}
    pseudo = Pseudo.of(data, 400, "")

    def plain(records):
        return {"value": float(np.mean(records["correct"]))}

    def means(records):
        return Means(np.asarray(records["correct"], float)[:, None], lambda m: {"value": m[..., 0]})

    def weighted(records):
        right = np.asarray(records["correct"], float)
        return Weighted(lambda w: {"value": w @ right / w.sum(1)}, len(right))

    found = [displacements(metric(data), metric, (data,), pseudo)["value"] for metric in (plain, means, weighted)]
    assert np.allclose(found, pseudo.of_share(0.0), atol=1e-12)


@pytest.mark.parametrize("metric, name", [("kolmogorov", "ks"), ("smooth", "smooth_ece"), ("selective", "accuracy_at_80"), ("adaptive", "adaptive_ece")])
def test_other_errors_of_a_broken_cell_keep_a_width_too(metric, name):
    draw = np.random.default_rng(0)
    data = {"confidence": 1 - 1e-3 * draw.random(100), "correct": np.zeros(100, bool)}
    data |= dict.fromkeys(("dirichlet_confidence", "entropy", "au", "log_eu"), data["confidence"])
    value, lo, hi = stats.summarise(data, [metric])[name]
    assert 0.02 < hi - lo < 0.08 and lo - 1e-9 <= value <= hi + 1e-9


def test_brier_and_likelihood_of_a_broken_cell_keep_a_width():
    """All wrong and sure of it: a loss near its largest, unless a sample is right, which one of them could be."""
    n = 100
    data = {"label": np.zeros(n, int), "label_probability": np.full(n, 1e-6), "brier": np.full(n, 2.0)}
    data |= {"correct": np.zeros(n, bool), "confidence": np.full(n, 1 - 1e-6), "prediction": np.ones(n, int)}
    found = stats.summarise(data, ["scores"])
    most = binomtest(0, n).proportion_ci(method="wilson").high
    assert found["brier"].lo == pytest.approx(2 - 2 * most, abs=0.01) and found["brier"].hi == pytest.approx(2)
    assert found["nll"].lo == pytest.approx(-math.log(1e-6) * (1 - most), rel=0.01)


def test_shares_are_told_from_other_rules_by_what_they_do():
    draw = np.random.default_rng(1)
    hits, known = draw.random(50) < 0.2, draw.random(50) < 0.6
    columns = np.stack([hits & known, known, draw.random(50)], axis=1).astype(float)

    def combine(means):
        top, below, real = means[..., 0], means[..., 1], means[..., 2]
        return {"share": top, "ratio": top / below, "f1": 2 * top / (1 + below), "real": real, "square": top**2}

    found = shares_of(Means(columns, combine))
    assert set(found) == {"share", "ratio"}
    assert found["share"].of_all and found["share"].hits.sum() == (hits & known).sum()
    assert not found["ratio"].of_all and len(found["ratio"].hits) == known.sum()
    shift = stats.metric_function("shift")(rows(30), rows(30, seed=1))
    assert set(shares_of(shift)) == {"entropy_falls", "au_falls", "eu_falls"}


def test_a_ratio_of_counts_has_score_limits_and_their_width_at_the_ends():
    def errors_of_the_sure(records):
        sure = np.asarray(records["confidence"]) > 0.5
        return Means(np.stack([sure & ~records["correct"], sure], axis=1).astype(float), lambda m: {"value": m[..., 0] / m[..., 1]})

    found = cell(np.linspace(0, 1, 80), np.zeros(80), metrics=[errors_of_the_sure]).interval("value")
    assert found == pytest.approx((1, binomtest(40, 40).proportion_ci(method="wilson").low, 1))


# -- several cells -----------------------------------------------------------------------------------------------
def test_two_broken_models_of_one_truth_rarely_differ():
    claims = {"ece": 0, "gap": 0}
    for seed in range(80):
        shared = Resamples(100, 200, seed % 5)
        one, other = (broken(100, 0.01, [seed, k], resamples=shared) for k in range(2))
        for name in claims:
            claims[name] += stats.difference(one, other, name).p < 0.05
    assert max(claims.values()) <= 80 * 0.05 + 2.5 * math.sqrt(80 * 0.05 * 0.95)
    assert stats.difference(broken(100, 0.01, 0), broken(100, 0.3, 1), "ece").p < 1e-3


@pytest.mark.parametrize("n", [1, 2, 4, stats.FEWEST - 1])
def test_few_samples_earn_no_star(n):
    good, bad = cell(np.linspace(0.02, 0.06, n), np.zeros(n)), cell(np.linspace(0.92, 0.96, n), np.zeros(n))
    assert math.isnan(stats.difference(good, bad, "ece").p)
    assert stats.mark({"good": good, "bad": bad}, "ece") == {"good": "best-not-significant", "bad": "second"}
    enough = [cell(np.linspace(low, low + 0.04, 100), np.zeros(100)) for low in (0.02, 0.92)]
    assert stats.mark(dict(zip("ab", enough, strict=True)), "ece")["a"] == "best"


def test_averages_of_broken_cells_do_not_add_up_what_was_not_seen():
    """11 sets of 500, none right: the limits of one set of 5500, and the value is one of them."""
    cells = [broken(500, 0, k, f"set{k}") for k in range(11)]
    value, lo, hi = stats.average(cells).interval("ece")
    most = binomtest(0, 5500).proportion_ci(method="wilson").high
    assert value - lo == pytest.approx(most, rel=0.3) and lo < value <= hi + 1e-6
    clean = stats.average([cell(np.full(500, 0.6), np.arange(500) < 300, f"set{k}") for k in range(11)])
    h, low, high = stats.harmonic(clean, stats.average(cells)).interval("h")
    assert (h, low) == (0, 0) and high == pytest.approx(2 * 0.6 * most / (0.6 + most), rel=0.3)


def test_an_average_of_errors_that_are_all_noise_may_be_none():
    held = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        cells = [cell(c := draw.uniform(0.2, 1, 150), draw.random(150) < c, f"set{k}", resamples=200) for k in range(4)]
        held += stats.average(cells).interval("ece").lo == 0
    assert held >= 34  # 0.95 less two and a half standard errors


# -- a user's metric ---------------------------------------------------------------------------------------------
def inverse(means):
    if (np.asarray(means) <= 0).any():
        raise ZeroDivisionError("no sample is left")
    return {"value": 1 / means[..., 0]}


@pytest.mark.parametrize("metric, said", [
    (lambda records: Means(np.eye(1, len(records["correct"])).T, inverse), "failed in resampling: ZeroDivisionError: no sample is left"),
    (lambda records: 1 / float(sum(records["confidence"] == records["confidence"][0]) > 0 and "set/0" in records["id"]),
     "failed on a resample: ZeroDivisionError"),
    (lambda records: Means(np.ones((len(records["correct"]), 2)), lambda means: {"value": means[0]}), "returned a ndarray|failed"),
    (lambda records: Weighted(lambda w: {"value": np.ones(1 if len(w) == 1 else 3)}, len(records["correct"])),
     r"failed in resampling: 'value' has shape \(3,\) where \(50,\) is right"),
])  # fmt: skip
def test_a_metric_that_fails_in_resampling_is_one_line_that_names_it(metric, said):
    records = {"id": np.array([f"set/{i}" for i in range(30)]), "confidence": np.linspace(0, 1, 30), "correct": np.zeros(30, bool)}
    metric.__name__ = "mine"
    with pytest.raises(UserError, match=f"metric 'mine' ({said})") as error:
        stats.summarise(records, [metric], 50)
    assert "\n" not in str(error.value)


def test_a_name_that_a_resample_lacks_is_left_out_there():
    def sometimes(records):
        return {"first": 1.0, "last": float(np.mean(records["confidence"]))} if "set/0" in records["id"] else {"first": 1.0}

    found = cell(np.linspace(0, 1, 30), np.zeros(30), metrics=[sometimes], resamples=100)
    assert np.isnan(found.draws["last"]).any() and found.interval("last").lo < 0.5 < found.interval("last").hi


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("pull", [0.0, 3.0])
def test_limits_stay_in_the_range_of_their_number(n, pull):
    """A mean entropy is not negative, a mean confidence no less than 0 and no more than 1, however few the samples."""
    found = stats.replicates(invented(n, 5, pull, 60, 3))
    ranges = {"nll": (0, np.inf), "brier": (0, np.inf), "entropy": (0, np.inf), "eu": (0, np.inf), "au": (0, np.inf),
              "confidence": (0, 1), "ece": (0, 1), "accuracy": (0, 1), "entropy_normalised": (0, 1)}  # fmt: skip
    for name, (low, high) in ranges.items():
        value, lo, hi = found.interval(name)
        assert low <= lo <= hi <= high, (name, value, lo, hi)
