"""Calibration metrics against naive loops, torchmetrics, and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from synthetic_run import records as invented

from robustcal.metrics.accuracy import accuracy, harmonic_mean, mean_harmonic
from robustcal.metrics.adaptive import adaptive
from robustcal.metrics.bins import bin_edges, binomial_limits, reliability_bins
from robustcal.metrics.calibration import bins_of, calibration, expected_calibration_error
from robustcal.metrics.classwise import classwise
from robustcal.metrics.debias import debiased_l1, folded_mean
from robustcal.metrics.decomposition import decomposition
from robustcal.metrics.kolmogorov import kolmogorov
from robustcal.metrics.logits import class_count
from robustcal.metrics.scores import negative_log_likelihood, scores
from robustcal.metrics.smooth import smooth
from robustcal.metrics.uncertainty import uncertainty
from robustcal.types import UserError

FIXED = settings(max_examples=60, deadline=None, derandomize=True)
#: Confidences where binning goes wrong: both ends, edges of 15 and 10 bins, ties.
SPECIAL = st.sampled_from([0.0, 1.0, 1 / 15, 2 / 15, 0.5, 0.1, 0.2, 1 - 1e-9, 1e-9, 1 / 3])
SAMPLES = st.lists(st.tuples(st.one_of(SPECIAL, st.floats(0, 1)), st.booleans()), min_size=1, max_size=40)


def columns(confidence, correct):
    confidence = np.asarray(confidence, dtype=np.float64)
    return {"confidence": confidence, "dirichlet_confidence": confidence, "correct": np.asarray(correct, dtype=bool)}


def rows(n=200, classes=10, pull=0.5, seed=0):
    return {name: np.asarray(column) for name, column in invented(n, classes, pull, 60, seed).items()}


def naive(confidence, correct, bins, norm):
    """Double loop over bins (low, high] and samples; 0 in the first bin."""
    edges = [float(e) for e in np.linspace(0, 1, bins + 1)]
    parts = []
    for b in range(bins):
        inside = [
            (c, y) for c, y in zip(confidence, correct) if edges[b] < c <= edges[b + 1] or (b == 0 and c == 0)
        ]  # fmt: skip
        if inside:
            gap = abs(sum(c for c, _ in inside) / len(inside) - sum(y for _, y in inside) / len(inside))
            parts.append((len(inside) / len(confidence), gap))
    assert math.isclose(sum(share for share, _ in parts), 1)  # every sample is in exactly one bin
    if norm == "max":
        return max(gap for _, gap in parts)
    power = 1 if norm == "l1" else 2
    return sum(share * gap**power for share, gap in parts) ** (1 / power)


@FIXED
@given(SAMPLES, st.sampled_from([1, 2, 10, 15]), st.sampled_from(["l1", "l2", "max"]))
def test_calibration_error_equals_the_double_loop(samples, bins, norm):
    confidence, correct = zip(*samples)
    assert expected_calibration_error(confidence, correct, bins, norm) == pytest.approx(
        naive(confidence, correct, bins, norm), abs=1e-9
    )


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [15, 7])
def test_calibration_error_equals_torchmetrics(norm, bins):
    torch = pytest.importorskip("torch")
    torchmetrics = pytest.importorskip("torchmetrics")
    torch.set_num_threads(1)
    logits = torch.randn(3000, 12, generator=torch.Generator().manual_seed(1)) * 2
    labels = torch.randint(0, 12, (3000,), generator=torch.Generator().manual_seed(2))
    probabilities = logits.softmax(-1)
    theirs = torchmetrics.classification.MulticlassCalibrationError(12, n_bins=bins, norm=norm)(probabilities, labels)
    confidence, prediction = probabilities.max(-1)
    ours = expected_calibration_error(confidence.numpy(), (prediction == labels).numpy(), bins, norm)
    assert ours == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize(
    "confidence, correct, expected",
    [([1.0], [1], 0.0), ([1.0], [0], 1.0), ([0.0], [0], 0.0), ([0.0], [1], 1.0), ([0.5] * 4, [1, 1, 0, 0], 0.0),
     ([1.0] * 5, [1, 1, 1, 1, 0], 0.2), ([0.0, 1.0], [0, 1], 0.0), ([0.3], [1], 0.7)],
)  # fmt: skip
def test_edge_cases_have_their_hand_computed_value(confidence, correct, expected):
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)
    assert calibration(columns(confidence, correct))["ece"] == pytest.approx(expected, abs=1e-6)
    assert kolmogorov(columns(confidence, correct))["ks"] <= expected + 1e-9


def test_no_samples_make_nan_not_a_crash():
    empty = columns([], [])
    assert math.isnan(expected_calibration_error([], []))
    for metric in (calibration, adaptive, kolmogorov, smooth, decomposition):
        assert all(math.isnan(value) for value in metric(empty).values()), metric


@pytest.mark.parametrize("bad", [[1.5, 0.2], [-0.1, 0.2], [23.0, 25.0]])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="of 2 confidences are not in"):
        expected_calibration_error(bad, [1, 0])
    with pytest.raises(UserError, match="column 'confidence'"):
        calibration(columns(bad, [1, 0]))


def test_float32_rounding_above_one_is_accepted():
    assert expected_calibration_error(np.array([1 + 1e-7], np.float32), [1]) == 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="bins must be"):
        reliability_bins([0.5], [1], bins=0)
    with pytest.raises(ValueError, match="norm 'l3'"):
        expected_calibration_error([0.5], [1], norm="l3")
    with pytest.raises(ValueError, match="scheme 'equal'"):
        reliability_bins([0.5], [1], scheme="equal")
    with pytest.raises(ValueError, match="must both be"):
        expected_calibration_error([0.5, 0.5], [1])
    with pytest.raises(UserError, match="reading 'tau'"):
        calibration(columns([0.5], [1]), reading="tau")


def test_one_bins_object_makes_the_number_and_the_diagram():
    data = rows(500)
    bins = bins_of(data)
    assert bins.error("l1") == pytest.approx(calibration(data)["ece"], abs=1e-6)
    assert bins.error("l2") == pytest.approx(calibration(data)["ece_l2"], abs=1e-6)
    assert bins.error("max") == pytest.approx(calibration(data)["mce"], abs=1e-6)
    assert bins.total == 500 and len(bins.edges) == 16
    used = bins.counts > 0
    assert ((bins.lower <= bins.accuracy) & (bins.accuracy <= bins.upper))[used].all()
    assert np.isnan(bins.accuracy[~used]).all() and (bins.lower[~used] == 0).all() and (bins.upper[~used] == 1).all()


def test_bin_intervals_are_exact_binomial():
    for hits, count in [(0, 1), (1, 1), (0, 20), (20, 20), (3, 17), (500, 1000)]:
        exact = binomtest(hits, count).proportion_ci(0.95, method="exact")
        assert [float(x) for x in binomial_limits(hits, count)] == pytest.approx([exact.low, exact.high], abs=1e-9)


def test_equal_mass_bins_hold_equally_many_and_keep_ties_together():
    confidence = np.random.default_rng(0).random(1500)
    assert (reliability_bins(confidence, confidence > 0.5, 15, "mass").counts == 100).all()
    tied = reliability_bins(np.array([1.0] * 90 + [0.5] * 10), np.ones(100), 15, "mass")
    assert tied.total == 100 and sorted(tied.counts[tied.counts > 0]) == [10, 90]
    assert len(bin_edges(np.array([]), 15, "mass")) == 2


@FIXED
@given(SAMPLES)
def test_over_and_underconfidence_make_up_ece_and_gap(samples):
    value = calibration(columns(*zip(*samples)))
    assert value["overconfidence"] + value["underconfidence"] == pytest.approx(value["ece"], abs=1e-6)
    assert value["overconfidence"] - value["underconfidence"] == pytest.approx(value["gap"], abs=1e-6)
    assert -1e-6 <= value["ece_debiased"] <= value["ece"] + 1e-6
    assert abs(value["gap"]) <= value["ece"] + 1e-6
    assert value["ece"] <= value["ece_l2"] + 1e-6 <= value["mce"] + 2e-6


@FIXED
@given(SAMPLES)
def test_kolmogorov_equals_the_loop_over_distinct_confidences(samples):
    confidence, correct = zip(*samples)
    total, worst = 0.0, 0.0
    for level in sorted(set(confidence)):
        total += sum(y - c for c, y in samples if c == level)
        worst = max(worst, abs(total))
    value = kolmogorov(columns(confidence, correct))["ks"]
    assert value == pytest.approx(worst / len(samples), abs=1e-9)


def test_smooth_error_equals_the_direct_integral():
    draw = np.random.default_rng(3)
    confidence = draw.random(300)
    correct = draw.random(300) < confidence**2
    width = smooth(columns(confidence, correct))["smooth_ece"]
    grid = (np.arange(2000) + 0.5) / 2000
    kernel = np.zeros((2000, 300))
    for copy in range(-3, 4):  # images of every sample in the mirrors at 0 and 1
        for image in (2 * copy + confidence, 2 * copy - confidence):
            kernel += np.exp(-((grid[:, None] - image) ** 2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
    assert np.abs(kernel @ (confidence - correct) / 300).mean() == pytest.approx(width, rel=0.01)


def test_constant_bias_is_found_by_every_binless_error():
    confidence = np.linspace(0.3, 1, 20_000)
    correct = (np.arange(20_000) * 0.618034) % 1 < confidence - 0.2
    data = columns(confidence, correct)
    for value in (kolmogorov(data)["ks"], smooth(data)["smooth_ece"], adaptive(data)["adaptive_ece"]):
        assert value == pytest.approx(0.2, abs=0.005)


def test_classwise_error_equals_a_loop_over_classes():
    data = rows(300, 6)
    logits = np.zeros((300, 6))
    np.put_along_axis(logits, data["top_classes"], data["top_logits"].astype(float), axis=1)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    each = [naive(p[:, k], data["label"] == k, 15, "l1") for k in range(6)]
    assert classwise(data)["classwise_ece"] == pytest.approx(np.mean(each), abs=1e-6)


def test_classwise_error_of_truncated_logits_is_close():
    data = rows(400, 40)
    full = classwise(data)["classwise_ece"]
    rest = data["top_logits"][:, 30:].astype(np.float64)
    cut = {
        **data, "top_logits": data["top_logits"][:, :30], "top_classes": data["top_classes"][:, :30],
        "rest_logit": np.log(np.exp(rest).sum(1)),
    }  # fmt: skip
    assert classwise(cut)["classwise_ece"] == pytest.approx(full, abs=2e-4)


@FIXED
@given(SAMPLES)
def test_brier_decomposition_is_exact(samples):
    confidence, correct = map(np.asarray, zip(*samples))
    value = decomposition(columns(confidence, correct))
    assert value["brier_top"] == pytest.approx(np.mean((confidence - correct) ** 2), abs=1e-6)
    signs = {"reliability": 1, "resolution": -1, "uncertainty": 1, "within": 1}
    parts = sum(sign * value[f"brier_{name}"] for name, sign in signs.items())
    assert parts == pytest.approx(value["brier_top"], abs=1e-9)
    assert value["brier_reliability"] >= -1e-9 and value["brier_resolution"] >= -1e-9


def test_proper_scores_of_invented_records_follow_from_their_logits():
    data = rows(200, 8)
    logits = np.zeros((200, 8))
    np.put_along_axis(logits, data["top_classes"], data["top_logits"].astype(float), axis=1)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert scores(data)["nll"] == pytest.approx(-log_p[np.arange(200), data["label"]].mean(), rel=1e-5)
    distance = ((np.exp(log_p) - np.eye(8)[data["label"]]) ** 2).sum(1).mean()
    assert scores(data)["brier"] == pytest.approx(distance, rel=1e-5)


def test_likelihood_of_an_underflowed_label_comes_from_the_logits():
    data = {
        "label": np.array([1, 0]), "label_probability": np.array([0.0, 1.0], np.float32), "brier": np.array([2, 0]),
        "top_logits": np.array([[300.0, 50.0], [10.0, -300.0]]), "top_classes": np.array([[0, 1], [0, 1]]),
        "rest_logit": np.array([-np.inf, -np.inf]),
    }  # fmt: skip
    assert negative_log_likelihood(data).tolist() == [250.0, 0.0]
    short = {name: data[name] for name in ("label", "label_probability", "brier")}
    assert np.isfinite(negative_log_likelihood(short)).all()


def test_uncertainty_and_class_count_follow_from_the_columns():
    for classes in (2, 10, 100, 1000):
        data = rows(50, classes)
        assert class_count(data) == classes
    value = uncertainty(data)
    assert value["eu"] == pytest.approx(np.exp(data["log_eu"].astype(float)).mean())
    assert value["au_normalised"] == pytest.approx(value["au"] / math.log(1000))
    assert 0 <= value["entropy_normalised"] <= 1


def test_harmonic_mean_of_averages_is_not_the_mean_of_harmonics():
    clean, attacked = np.array([0.9, 0.5]), np.array([0.1, 0.5])
    assert harmonic_mean(clean.mean(), attacked.mean()) == pytest.approx(2 * 0.7 * 0.3 / 1.0)
    assert mean_harmonic(clean, attacked) == pytest.approx((0.18 + 0.5) / 2)
    assert harmonic_mean(0.0, 0.0) == 0 and harmonic_mean(0.5, 0.0) == 0 and np.isnan(harmonic_mean(np.nan, 0.5))


def test_accuracy_is_the_share_of_correct_samples():
    assert dict(accuracy({"correct": np.array([True, False, True, True])})) == {"accuracy": 0.75}


def test_folded_mean_and_debiasing_have_their_limits():
    assert folded_mean(np.array(0.0), np.array(2.0)) == pytest.approx(2 * math.sqrt(2 / math.pi))
    assert folded_mean(np.array(-3.0), np.array(0.0)) == 3
    assert folded_mean(np.array(5.0), np.array(0.01)) == pytest.approx(5)
    gaps = np.array([0.1, -0.2, 0.05])
    assert debiased_l1(gaps, np.zeros(3)) == pytest.approx(0.35)
    assert debiased_l1(gaps * 1e-3, np.full(3, 0.1)) == 0


def test_nan_is_refused_by_the_function_and_left_out_by_the_metric():
    with pytest.raises(ValueError, match="1 of 2 confidences"):
        expected_calibration_error([math.nan, 0.2], [1, 0])
    assert not calibration(columns([math.nan, 0.2], [1, 0]))
    assert bins_of(columns([math.nan, 0.2], [1, 0])).total == 0
