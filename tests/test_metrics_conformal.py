"""Conformal sets against the exact distribution of their coverage, and naive loops."""

import numpy as np
import pytest
from scipy.stats import betabinom, kstest
from synthetic_run import records

from robustcal.metrics.conformal import (
    FREE,
    METHODS,
    PENALTY,
    coverage_limits,
    lowest_class_coverage,
    nonconformity,
    outcomes,
    place_of,
    prediction_sets,
    threshold,
    uniform_of,
)  # fmt: skip
from robustcal.types import UserError


def cell(n=200, pull=0.3, seed=0, prefix="set"):
    return {name: np.asarray(column) for name, column in records(n, 7, pull, 40, seed, prefix).items()}


def naive_score(probabilities, label, method, u):
    """The score of one class by the words of the papers."""
    if method == "threshold":
        return -np.log(probabilities[label])
    order = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    rank = order.index(label)
    score = sum(probabilities[k] for k in order[:rank]) + (1 - u) * probabilities[label]
    return score + (PENALTY * max(rank + 1 - FREE, 0) if method == "raps" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_sets_are_those_of_the_definition(method):
    rows = cell(60)
    scored, u = nonconformity(rows, method), uniform_of(rows["id"])
    limit = threshold(scored.of_label, 0.8)
    sets = prediction_sets(scored, limit)
    for i in range(60):
        z = np.empty(7)
        z[rows["top_classes"][i]] = rows["top_logits"][i].astype(np.float64)
        p = np.exp(z - z.max())
        p /= p.sum()
        wanted = [naive_score(p, int(k), method, u[i]) for k in rows["top_classes"][i]]
        np.testing.assert_allclose(scored.scores[i], wanted, atol=1e-9)
        here = {int(k) for k, inside in zip(rows["top_classes"][i], sets[i], strict=True) if inside}
        assert here == {int(k) for k, score in zip(rows["top_classes"][i], scored.scores[i], strict=True) if score <= limit}
        covered, size = outcomes(scored, limit)[i]
        assert (covered, size) == (int(rows["label"][i]) in here, len(here))


def test_the_threshold_is_the_smallest_score_that_enough_samples_reach():
    for n in (1, 9, 10, 19, 37):
        scores = np.random.default_rng(n).standard_normal(n)
        for level in (0.5, 0.8, 0.9, 0.95):
            enough = [s for s in scores if sum(x <= s for x in scores) / (n + 1) >= level - 1e-12]
            assert threshold(scores, level) == (min(enough) if enough else np.inf)
    assert place_of(9, 0.9) == 9 and threshold(np.arange(8.0), 0.9) == np.inf


@pytest.mark.parametrize("method", METHODS)
def test_coverage_has_its_exact_distribution(method):
    """Of m further samples the number covered is beta-binomial, whatever the model (Vovk 2012)."""
    n, m, level, found = 30, 20, 0.9, []
    pool = nonconformity(cell(60_000, seed=5), method)
    for i in range(1200):
        part = pool.of_label[50 * i : 50 * i + 50]
        found.append(int((part[n:] <= threshold(part[:n], level)).sum()))
    k = place_of(n, level)
    wanted = betabinom(m, k, n + 1 - k)
    assert np.mean(found) == pytest.approx(wanted.mean(), abs=4 * wanted.std() / np.sqrt(len(found)))
    jitter = np.random.default_rng(0).random(len(found))  # the randomised transform of a discrete law is uniform
    uniform = wanted.cdf(np.array(found) - 1) + jitter * wanted.pmf(found)
    assert kstest(uniform, "uniform").pvalue > 1e-4


def test_limits_of_the_coverage_are_quantiles_of_what_is_simulated():
    low, high = coverage_limits(50, 0.9, 0.9)
    random = np.random.default_rng(1)
    true = np.sort(random.random((20_000, 50)), axis=1)[:, place_of(50, 0.9) - 1]  # of uniform scores, the threshold is the coverage
    assert np.mean(true < low) == pytest.approx(0.05, abs=0.006) and np.mean(true > high) == pytest.approx(0.05, abs=0.006)
    assert coverage_limits(5, 0.9) == (1.0, 1.0)


def test_a_harder_distribution_is_covered_less_and_calibrating_on_it_mends_that():
    clean, attacked = nonconformity(cell(4000, 0.0)), nonconformity(cell(4000, 1.0))
    kept, lost = (outcomes(x, threshold(clean.of_label[::2]))[1::2, 0].mean() for x in (clean, attacked))
    mended = outcomes(attacked, threshold(attacked.of_label[::2]))[1::2].mean(0)
    assert lost < kept - 0.1 and kept == pytest.approx(0.9, abs=0.02) and mended[0] == pytest.approx(0.9, abs=0.02)


def test_the_random_part_is_a_samples_own():
    ids = [f"set/{i}" for i in range(5000)]
    assert kstest(uniform_of(ids), "uniform").pvalue > 1e-3
    assert np.array_equal(uniform_of(ids[::-1])[::-1], uniform_of(ids))


def test_limits_of_the_least_covered_class_hold_it():
    random, true, held = np.random.default_rng(3), np.array([0.95, 0.9, 0.7, 0.72]), 0
    for _ in range(400):
        labels = np.repeat(np.arange(4), 40)
        value, low, high = lowest_class_coverage(random.random(160) < true[labels], labels)
        held += low <= true.min() <= high
        assert low <= value <= high
    assert held >= 380
    assert np.isnan(lowest_class_coverage(np.empty(0), np.empty(0))).all()


def test_what_has_no_sets_is_said():
    with pytest.raises(UserError, match="conformal method 'top' is unknown"):
        nonconformity(cell(5), "top")
    with pytest.raises(UserError, match="multi-label"):
        nonconformity(cell(5) | {"label": np.full(5, -1)})
    with pytest.raises(UserError, match="need every logit"):
        nonconformity(cell(5) | {"rest_logit": np.zeros(5)})
