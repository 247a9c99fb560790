"""Attack losses: signs, invariances and hand-computed values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcal.attacks import losses


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_margin_is_positive_exactly_when_wrong(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, generator=generator)
    labels = torch.randint(classes, (5,), generator=generator)
    assert torch.equal(losses.margin(logits, labels) > 0, logits.argmax(1) != labels)


def test_dlr_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.5, 0.0]])
    assert losses.dlr(logits, torch.tensor([0])).item() == pytest.approx(-(3 - 1) / (3 - 0.5))
    found = losses.targeted_dlr(logits, torch.tensor([0]), torch.tensor([2]))
    assert found.item() == pytest.approx(-(3 - 0.5) / (3 - (0.5 + 0.0) / 2))


@pytest.mark.parametrize("scale, shift", [(7.0, 0.0), (1.0, 30.0), (0.01, -5.0)])
def test_dlr_is_free_of_scale_and_shift(scale, shift):
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 5
    assert torch.allclose(losses.dlr(logits, labels), losses.dlr(logits * scale + shift, labels))


def test_dlr_with_two_classes_is_the_logit_difference():
    logits = torch.tensor([[2.0, 0.5]], requires_grad=True)
    losses.dlr(logits, torch.tensor([0])).sum().backward()
    assert logits.grad.tolist() == [[-1.0, 1.0]]


def test_multi_label_margin_by_hand():
    """Largest negative minus mean positive; a missing side counts as 0."""
    logits = torch.tensor([[4.0, 1.0, 2.0, 5.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert losses.margin(logits, labels).tolist() == [5.0 - 3.0, 4.0 - 0.0, 0.0 - 2.5]


def test_centred_bce_moves_the_positives_where_raw_bce_cannot():
    """On logits far above zero the raw loss leaves positives without gradient; the centred one does not."""
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    gradients = {}
    for name in ("bce", "bce-raw"):
        logits = torch.tensor([[26.0, 25.0, 24.0]], requires_grad=True)
        losses.find_loss(name)(logits, labels).sum().backward()
        gradients[name] = logits.grad
    assert abs(gradients["bce-raw"][0, 0]) < 1e-8
    assert gradients["bce"][0, 0] < -0.1
