"""Metrics of hundreds of classes, from records as the judge writes them."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from robustcal.metrics.classwise import classwise
from robustcal.metrics.logits import logits_of
from robustcal.metrics.scores import scores, with_loss
from robustcal.metrics.temperature import at_temperature, fit_temperature
from robustcal.sweep.verify import measure


@pytest.mark.parametrize("classes", [300, 1000])
def test_the_temperature_of_many_classes_is_exact(classes):
    draw = np.random.default_rng(classes)
    logits = draw.normal(20, 3, (400, classes)).astype(np.float32)
    labels = (logits / 3 + draw.gumbel(size=logits.shape)).argmax(1)
    data = {name: np.asarray(column) for name, column in measure(torch.tensor(logits), torch.tensor(labels), None).items()}

    def loss(temperature):
        scaled = logits.astype(float) / temperature
        return (logsumexp(scaled, axis=1) - scaled[np.arange(400), labels]).mean()

    best = minimize_scalar(loss, bounds=(1, 9), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(data) == pytest.approx(best, rel=1e-5)
    kept = with_loss(data, lambda columns: data)
    assert scores(kept)["nll"] == pytest.approx(loss(1.0), rel=1e-6)
    assert scores(at_temperature(kept, 4.0))["nll"] == scores(at_temperature(data, 4.0))["nll"]
    assert scores(at_temperature(data, 4.0))["nll"] == pytest.approx(loss(4.0), rel=1e-6)


def test_classes_that_no_record_names_are_counted_without_a_dirichlet_reading():
    logits = torch.randn(40, 1300, generator=torch.Generator().manual_seed(0))
    data = measure(logits, torch.arange(40), None)
    assert logits_of(data).classes_in_all == 1300
    assert np.isfinite(fit_temperature(data)) and classwise(data)["classwise_ece"] > 0
