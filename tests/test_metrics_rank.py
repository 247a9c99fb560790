"""Rank-based metrics, shifts, multi-label metrics and temperatures against scikit-learn and loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score
from synthetic_run import records as invented

from robustcal.metrics.adaptive import adaptive
from robustcal.metrics.calibration import calibration
from robustcal.metrics.classwise import classwise
from robustcal.metrics.decomposition import decomposition
from robustcal.metrics.detection import detection
from robustcal.metrics.kolmogorov import kolmogorov
from robustcal.metrics.label_calibration import label_calibration, padded
from robustcal.metrics.logits import logits_of
from robustcal.metrics.multilabel import multilabel, score_matrix
from robustcal.metrics.scores import scores
from robustcal.metrics.selective import risk_coverage, selective
from robustcal.metrics.shift import shift
from robustcal.metrics.smooth import smooth
from robustcal.metrics.sorting import Sorted
from robustcal.metrics.temperature import at_temperature, fit_temperature, posthoc
from robustcal.metrics.top_labels import top_labels
from robustcal.metrics.uncertainty import uncertainty
from robustcal.scaling import HIGHEST, LOWEST
from robustcal.types import UserError

FIXED = settings(max_examples=50, deadline=None, derandomize=True)
TIED = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=9)


def rows(n=200, classes=10, pull=0.5, seed=0):
    return {name: np.asarray(column) for name, column in invented(n, classes, pull, 60, seed).items()}


def ranked(confidence, correct):
    confidence = np.asarray(confidence, dtype=np.float64)
    return {"correct": np.asarray(correct, dtype=bool), "confidence": confidence}


@FIXED
@given(TIED)
def test_aurc_is_the_mean_over_random_orders_of_ties(samples):
    confidence, correct = map(np.asarray, zip(*samples))
    draw = np.random.default_rng(0)
    areas = []
    for _ in range(400):
        order = np.lexsort((draw.random(len(correct)), -confidence))
        wrong = (~correct[order]).cumsum() / np.arange(1, len(order) + 1)
        areas.append(wrong.mean())
    value = selective(ranked(confidence, correct))
    spread = np.std(areas) / math.sqrt(len(areas))
    assert abs(value["aurc"] - np.mean(areas)) <= 5 * spread + 1e-9
    assert value["aurc_excess"] >= -1e-9


def test_aurc_without_ties_equals_the_loop():
    draw = np.random.default_rng(1)
    confidence, correct = draw.permutation(50) / 50, draw.random(50) < 0.6
    order = np.argsort(-confidence)
    wrong = ~correct[order]
    expected = np.mean([wrong[: i + 1].mean() for i in range(50)])
    value = selective(ranked(confidence, correct))
    assert value["aurc"] == pytest.approx(expected)
    assert value["accuracy_at_80"] == pytest.approx(1 - wrong[:40].mean())
    coverage, risk = risk_coverage(ranked(confidence, correct))
    assert coverage[-1] == 1 and risk[-1] == pytest.approx(wrong.mean()) and len(risk) == 50
    assert risk.mean() == pytest.approx(expected)


def test_ranking_every_error_last_has_no_excess():
    assert selective(ranked([0.9, 0.8, 0.2], [1, 1, 0]))["aurc_excess"] == pytest.approx(0)
    assert selective(ranked([0.2, 0.8, 0.9], [1, 1, 0]))["aurc_excess"] > 0.3
    assert selective(ranked([1.0], [0])) == pytest.approx({"aurc": 1, "aurc_excess": 0, "accuracy_at_80": 0})
    assert all(math.isnan(value) for value in selective(ranked([], [])).values())
    with pytest.raises(UserError, match="ranking 'margin'"):
        selective(ranked([0.5], [1]), by="margin")


def test_ties_are_shared_out_at_the_coverage():
    value = selective(ranked([0.5] * 10, [1] * 5 + [0] * 5))
    assert value["accuracy_at_80"] == pytest.approx(0.5) and value["aurc"] == pytest.approx(0.5)


@FIXED
@given(TIED, st.integers(0, 100))
def test_detection_equals_scikit_learn(samples, seed):
    after = np.array([c for c, _ in samples])
    before = np.random.default_rng(seed).permutation(np.round(after + 0.1, 3))
    data = dict.fromkeys(("confidence", "entropy", "au", "log_eu"), after)
    clean = dict.fromkeys(("confidence", "entropy", "au", "log_eu"), before)
    truth, score = np.repeat([0, 1], len(after)), np.concatenate([before, after])
    value = detection(data, clean)
    assert value["auroc_entropy"] == pytest.approx(roc_auc_score(truth, score))
    assert value["auroc_confidence"] == pytest.approx(roc_auc_score(truth, -score))


def test_identical_records_cannot_be_told_apart():
    data = rows()
    chance = {f"auroc_{name}": 0.5 for name in ("confidence", "entropy", "au", "eu")}
    assert dict(detection(data, data)) == pytest.approx(chance)
    assert all(value == 0 for value in shift(data, data).values())


def test_shift_is_the_mean_change():
    clean, attacked = rows(pull=0.0), rows(pull=1.0)
    value = shift(attacked, clean)
    assert value["entropy_shift"] == pytest.approx((attacked["entropy"] - clean["entropy"]).mean(), abs=1e-6)
    assert value["au_falls"] == pytest.approx((attacked["au"] < clean["au"]).mean())
    flipped = clean["correct"] & ~attacked["correct"]
    assert 0 < flipped.sum() < 200
    moved = (attacked["confidence"] - clean["confidence"])[flipped].mean()
    assert shift(attacked, clean, on="flipped")["confidence_shift"] == pytest.approx(moved, abs=1e-6)
    assert all(math.isnan(v) for v in shift(clean, clean, on="flipped").values())
    with pytest.raises(UserError, match="on 'some'"):
        shift(attacked, clean, on="some")


def test_coarse_groups_keep_whole_groups_and_all_samples():
    groups = Sorted(np.random.default_rng(0).integers(0, 300, 5000))
    coarse = groups.coarse(50)
    assert len(coarse.starts) <= 50 and set(coarse.starts) <= set(groups.starts)
    assert groups.group_sums(np.ones((1, 5000))).sum() == coarse.group_sums(np.ones((1, 5000))).sum() == 5000


# -- multi-label -------------------------------------------------------------------------------------------------
def labelled(n=120, classes=7, seed=0):
    draw = np.random.default_rng(seed)
    truth = draw.random((n, classes)) < np.linspace(0.02, 0.5, classes)
    logits = np.round(draw.standard_normal((n, classes)) + truth, 1)  # rounding makes ties
    order = np.argsort(-logits, axis=1, kind="stable")
    lists = np.empty(n, dtype=object)
    lists[:] = [np.flatnonzero(row) for row in truth]
    data = {
        "label": np.full(n, -1), "labels": lists, "top_logits": np.take_along_axis(logits, order, 1),
        "top_classes": order, "rest_logit": np.full(n, -np.inf),
    }  # fmt: skip
    return data, truth, logits


def test_map_equals_scikit_learn_over_the_whole_dataset():
    data, truth, logits = labelled()
    truth[:, 0] = False  # a class without positives does not count
    data["labels"][:] = [np.flatnonzero(row) for row in truth]
    expected = np.mean([average_precision_score(truth[:, k], logits[:, k]) for k in range(1, 7)])
    assert multilabel(data)["map"] == pytest.approx(expected)
    assert np.array_equal(score_matrix(logits_of(data)), logits)


def test_top_labels_equal_scikit_learn_micro():
    data, truth, _ = labelled()
    predicted = np.zeros_like(truth)
    np.put_along_axis(predicted, data["top_classes"][:, :3], True, axis=1)
    value = top_labels(data)
    for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert value[f"{name}_at_3"] == pytest.approx(function(truth, predicted, average="micro"))
    assert set(top_labels(data, k=5)) == {"precision_at_5", "recall_at_5", "f1_at_5"}


@pytest.mark.parametrize("reading", ["softmax", "sigmoid", "centred"])
def test_label_ece_equals_the_loop(reading):
    data, truth, logits = labelled()
    centred = logits - logits.mean(1, keepdims=True)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = {"softmax": soft, "sigmoid": 1 / (1 + np.exp(-logits)), "centred": 1 / (1 + np.exp(-centred))}[reading]
    total = 0.0
    for k in range(7):
        for low in np.linspace(0, 1, 16)[:-1]:
            inside = (p[:, k] > low) & (p[:, k] <= low + 1 / 15 + 1e-12)
            total += abs((p[inside, k] - truth[inside, k]).sum()) / 120
    assert label_calibration(data, reading=reading)["label_ece"] == pytest.approx(total / 7, abs=1e-9)
    if reading == "centred":
        assert label_calibration(data) == label_calibration(data, reading=reading)


def test_multilabel_metrics_say_nothing_about_single_labels_and_the_other_way_round():
    single, (multi, _, _) = rows(), labelled()
    assert not multilabel(single) and not top_labels(single) and not label_calibration(single)
    assert not scores({**multi, "label_probability": np.zeros(120), "brier": np.zeros(120)})
    assert padded(np.array([[1, 2], []], dtype=object)).tolist() == [[1, 2], [-1, -1]]
    hidden = {**multi, "rest_logit": np.zeros(120), "log_eu": np.full(120, np.nan)}
    assert not label_calibration(hidden) and label_calibration(hidden, reading="softmax")
    for k in (0, -1):
        with pytest.raises(UserError, match=f"k={k} must be 1 or more"):
            top_labels(multi, k=k)
    with pytest.raises(UserError, match="no column 'labels'"):
        multilabel({name: column for name, column in multi.items() if name != "labels"})


# -- temperature -------------------------------------------------------------------------------------------------
def test_temperature_recovers_the_one_that_made_the_labels():
    draw = np.random.default_rng(5)
    logits = draw.standard_normal((20_000, 6)) * 3
    p = np.exp(logits / 2.5)
    labels = ((p / p.sum(1, keepdims=True)).cumsum(1) > draw.random((20_000, 1))).argmax(1)
    order = np.argsort(-logits, axis=1)
    data = {
        "label": labels, "top_logits": np.take_along_axis(logits, order, 1), "top_classes": order,
        "rest_logit": np.full(20_000, -np.inf),
    }  # fmt: skip
    assert fit_temperature(data) == pytest.approx(2.5, rel=0.05)
    assert fit_temperature(at_temperature(data, 2.5)) == pytest.approx(fit_temperature(data) / 2.5, rel=1e-4)


def test_records_at_their_own_scale_are_unchanged():
    data = rows(300, 12)
    same = at_temperature(data, 1.0)
    for name in ("confidence", "label_probability", "entropy", "brier"):
        assert np.allclose(same[name], data[name], atol=2e-5), name
    assert set(same) == set(data)


def test_the_oracle_has_the_lowest_likelihood_loss():
    clean, attacked = rows(2000, pull=0.0), rows(2000, pull=1.0)
    found = posthoc(attacked, clean_source=clean, attacked_source=rows(2000, pull=1.0, seed=9))
    loss = {name: scores(records)["nll"] for name, (_, records) in found.items()}
    assert list(found) == ["native", "clean", "attacked", "oracle"] and found["native"][0] == 1
    assert loss["oracle"] == min(loss.values()) and loss["attacked"] < loss["clean"] < loss["native"]
    assert all(np.array_equal(records["correct"], attacked["correct"]) for _, records in found.values())


def test_temperature_of_truncated_logits_is_close():
    data = rows(1500, 60)
    rest = data["top_logits"][:, 50:].astype(np.float64)
    cut = {
        **data, "top_logits": data["top_logits"][:, :50], "top_classes": data["top_classes"][:, :50],
        "rest_logit": np.log(np.exp(rest).sum(1)),
    }  # fmt: skip
    assert fit_temperature(cut) == pytest.approx(fit_temperature(data), rel=0.02)
    assert np.allclose(at_temperature(cut, 3.0)["confidence"], at_temperature(data, 3.0)["confidence"], atol=5e-3)


def test_temperature_stays_in_range_where_the_loss_has_no_minimum():
    data = rows(50)
    right = {**data, "label": data["top_classes"][:, 0]}
    wrong = {**data, "label": data["top_classes"][:, -1]}
    top = data["top_logits"].astype(np.float64)
    spread = (top[:, 0] - top.mean(1)).mean()
    assert fit_temperature(right) == pytest.approx(LOWEST * spread)
    assert fit_temperature(wrong) == pytest.approx(HIGHEST * spread)
    hundred = {**data, "top_logits": 100 * top, "rest_logit": 100 * data["rest_logit"].astype(np.float64)}
    assert fit_temperature(hundred) == pytest.approx(100 * fit_temperature({**data, "top_logits": top}), rel=1e-6)
    with pytest.raises(UserError, match="multi-label"):
        fit_temperature(labelled()[0])
    with pytest.raises(UserError, match="no records"):
        fit_temperature({"label": np.array([])})
    with pytest.raises(UserError, match="no column 'top_logits'"):
        fit_temperature({"label": np.array([1])})


def test_a_classifier_without_cosines_has_the_metrics_of_its_softmax():
    data = rows(80)
    for name in ("dirichlet_confidence", "log_alpha0", "au", "log_eu"):
        data[name] = np.full(80, np.nan)
    assert set(detection(data, data)) == {"auroc_confidence", "auroc_entropy"}
    assert not selective(data, by="eu") and selective(data)
    assert math.isnan(shift(data, data)["au_shift"]) and shift(data, data)["entropy_shift"] == 0
    for metric in (calibration, adaptive, kolmogorov, smooth, decomposition):
        assert metric(data) and not metric(data, reading="dirichlet")
    value = uncertainty(data)
    assert math.isfinite(value["entropy"]) and math.isnan(value["au"]) and math.isnan(value["entropy_normalised"])
    assert classwise(data)["classwise_ece"] > 0


def test_the_released_uncertainties_are_those_of_the_released_evidence():
    """Against the formulas in plain loops; where the evidence is large they are the entropy of the softmax, and nothing."""
    from scipy.special import digamma, logsumexp, softmax

    from robustcal.metrics.released_uncertainty import released_uncertainty

    draw = np.random.default_rng(0)
    for scale, offset in ((3.0, 0.0), (4.0, 24.0)):
        logits = np.sort(draw.normal(offset, scale, (40, 7)))[:, ::-1]
        records = {"top_logits": logits, "top_classes": np.tile(np.arange(7), (40, 1)), "rest_logit": np.full(40, -np.inf)}
        records |= {"label": np.zeros(40, int), "log_eu": np.full(40, np.nan), "log_alpha0": np.full(40, np.nan)}
        found = released_uncertainty(records)
        au, eu = [], []
        for row in logits:
            alpha = 1e-6 + np.exp(np.log1p(np.exp(row)))
            total = alpha.sum()
            au.append(-sum(a / total * (digamma(a + 1) - digamma(total + 1)) for a in alpha) / np.log(7))
            eu.append(7 / logsumexp(alpha + 1) / np.log(7))
        assert found["au_released"] == pytest.approx(np.mean(au), rel=1e-6)
        assert found["eu_released"] == pytest.approx(np.mean(eu), rel=1e-6)
    entropy = -(softmax(logits, 1) * np.log(softmax(logits, 1))).sum(1).mean() / np.log(7)
    assert found["au_released"] == pytest.approx(entropy, abs=1e-4) and found["eu_released"] < 1e-6
