"""Calibrators against scikit-learn, naive loops and the models that they are the best of."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from synthetic_run import records

from robustcal.metrics.calibrators import CALIBRATORS, all_logits, fit_vector, histogram, isotonic, vector, with_logits
from robustcal.metrics.temperature import at_temperature
from robustcal.types import UserError


def cell(n=300, pull=0.3, seed=0, sharpness=120.0):
    return {name: np.asarray(column) for name, column in records(n, 6, pull, sharpness, seed).items()}


def pool_adjacent(confidence, correct):
    """Isotonic regression by its min-max formula: at x the largest, over starts below, of the least mean up to an end above."""
    xs = np.unique(confidence)
    means = [[correct[(confidence >= a) & (confidence <= b)].mean() if b >= a else np.inf for b in xs] for a in xs]
    return xs, np.array([max(min(means[s][e] for e in range(i, len(xs))) for s in range(i + 1)) for i in range(len(xs))])


def test_isotonic_is_the_least_squares_rising_function():
    rows, other = cell(60), cell(80, seed=1)
    rows["confidence"] = np.round(rows["confidence"].astype(np.float64), 2)  # ties
    xs, wanted = pool_adjacent(rows["confidence"], rows["correct"].astype(float))
    fitted = isotonic(rows)
    np.testing.assert_allclose(fitted.apply(rows)["confidence"], wanted[np.searchsorted(xs, rows["confidence"])], atol=1e-9)
    np.testing.assert_allclose(fitted.apply(other)["confidence"], np.interp(other["confidence"], xs, wanted), atol=1e-6)


def test_histogram_binning_is_the_accuracy_of_neighbours():
    rows = cell(150)
    rows["confidence"] = np.sort(np.random.default_rng(0).permutation(150) / 150 + 1 / 300)
    found = histogram(rows, 15).apply(rows)["confidence"]
    np.testing.assert_allclose(found, np.repeat(rows["correct"].reshape(15, 10).mean(1), 10))
    saturated = cell(20) | {"confidence": np.ones(20)}
    assert histogram(saturated).apply(saturated)["confidence"] == pytest.approx(saturated["correct"].mean())


def test_vector_scaling_recovers_the_scaling_that_made_the_labels():
    random = np.random.default_rng(4)
    z = 3 * random.standard_normal((60_000, 4)) + 20
    weight, bias = np.array([0.5, 0.7, 1.0, 0.6]), np.array([0.8, -0.5, 0.0, 0.4])
    logits = weight * (z - 20) + bias
    labels = (logits + random.gumbel(size=logits.shape)).argmax(1)
    scaled = fit_vector(z, labels, 1.7)(z)
    gap = log_softmax(scaled, axis=1) - log_softmax(logits, axis=1)
    assert np.abs(gap).mean() < 0.03


def test_vector_scaling_has_the_least_loss():
    """Convex: no step from it lowers the loss, whose gradient is taken by differences."""
    rows = cell(200)
    z, labels = all_logits(rows), rows["label"]
    found = fit_vector(z, labels, 2.0)

    def loss(shift, bias):
        scaled = (z + shift * (z - z.mean(0))) / 2.0 + bias
        return -log_softmax(scaled, axis=1)[np.arange(200), labels].sum() + (shift @ shift + bias @ bias) / 2

    best, step = loss(found.weight - 1, found.bias), 1e-4
    for part in range(2):
        for k in range(6):
            move = np.eye(6)[k] * step
            for sign in (1, -1):
                parts = [found.weight - 1, found.bias]
                parts[part] = parts[part] + sign * move
                assert loss(*parts) >= best - 1e-9


def test_with_a_bias_alone_it_is_scikit_learns_prior_correction():
    """Where all weights are 1 the rest is a multinomial regression on constant features with an offset: two classes suffice."""
    random = np.random.default_rng(2)
    z = np.zeros((400, 2))
    labels = (random.random(400) < 0.8).astype(int)
    found = fit_vector(z, labels, 1.0)
    # logits z = 0: only b counts, with prior (b0^2 + b1^2) / 2 and b1 = -b0: an L2 penalty on d = b1 - b0 of d^2 / 4.
    reference = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10).fit(np.ones((400, 1)), labels)
    assert found.bias[1] - found.bias[0] == pytest.approx(reference.coef_[0, 0], abs=1e-4)


def test_with_logits_describes_them():
    """The same as a temperature where the logits are those of one."""
    rows = cell(50)
    one, other = at_temperature(rows, 3.0), with_logits(rows, all_logits(rows) / 3.0)
    for name in ("confidence", "label_probability", "entropy", "brier", "top_logits"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-6)
    assert np.array_equal(other["prediction"], rows["prediction"]) and np.array_equal(other["correct"], rows["correct"])


@pytest.mark.parametrize("name", ["isotonic", "histogram"])
def test_those_of_the_confidence_alone_leave_no_distribution(name):
    rows = cell(80)
    found = CALIBRATORS[name](rows).apply(rows)
    assert np.array_equal(found["correct"], rows["correct"]) and np.isnan(found["brier"]).all() and "top_logits" not in found
    assert found["confidence"].mean() == pytest.approx(rows["correct"].mean(), abs=1e-6)  # calibrated in the large where fitted


def test_other_classes_and_hidden_logits_are_refused():
    fitted, seven = vector(cell(50)), {k: np.asarray(v) for k, v in records(20, 7, 0.1, 60, 0).items()}
    with pytest.raises(UserError, match="vector scaling of 6 classes does not fit records of 7"):
        fitted.apply(seven)
    with pytest.raises(UserError, match="needs every logit"):
        all_logits(seven | {"rest_logit": np.zeros(20)})
