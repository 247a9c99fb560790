"""The Dirichlet mathematics against torch.distributions, high-precision arithmetic and its own derived identity."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Dirichlet
from torch.distributions import kl_divergence as torch_kl

from robustcal import dirichlet

torch.set_num_threads(1)
F32, F64 = torch.float32, torch.float64
#: Ranges of ln alpha: below one, around one, everything, CLIP's typical evidence, and up to alpha = 1e12.
RANGES = [(-7.0, 0.0), (0.0, 3.0), (-7.0, 27.6), (15.0, 20.0), (25.0, math.log(1e12))]


def random_logs(seed, classes, low, high, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(classes, generator=generator, dtype=F64) * (high - low) + low).to(dtype)


def exact_concentrations(log_alpha):
    return [mpmath.exp(mpmath.mpf(float(x))) for x in log_alpha]


def exact_kl(log_a, log_b):
    """The textbook closed form, at 60 digits, of exactly the logs the code was given."""
    with mpmath.workdps(60):
        a, b = exact_concentrations(log_a), exact_concentrations(log_b)
        a0, b0 = mpmath.fsum(a), mpmath.fsum(b)
        terms = (
            mpmath.loggamma(y) - mpmath.loggamma(x) + (x - y) * (mpmath.digamma(x) - mpmath.digamma(a0))
            for x, y in zip(a, b)
        )
        return float(mpmath.loggamma(a0) - mpmath.loggamma(b0) + mpmath.fsum(terms))


def exact_gradients(log_a, log_b):
    """d KL / d ln a and d KL / d ln b at 60 digits."""
    with mpmath.workdps(60):
        a, b = exact_concentrations(log_a), exact_concentrations(log_b)
        a0, b0, psi = mpmath.fsum(a), mpmath.fsum(b), mpmath.digamma
        total = (a0 - b0) * mpmath.polygamma(1, a0)
        of_a = [x * ((x - y) * mpmath.polygamma(1, x) - total) for x, y in zip(a, b)]
        of_b = [y * (psi(y) - psi(x) - psi(b0) + psi(a0)) for x, y in zip(a, b)]
        return torch.tensor([float(g) for g in of_a]), torch.tensor([float(g) for g in of_b])


def exact_uncertainty(log_alpha):
    """(aleatoric, epistemic) at 60 digits."""
    with mpmath.workdps(60):
        a = exact_concentrations(log_alpha)
        a0, top = mpmath.fsum(a), mpmath.digamma(mpmath.fsum(a) + 1)
        aleatoric = mpmath.fsum(x / a0 * (top - mpmath.digamma(x + 1)) for x in a)
        return float(aleatoric), float(len(a) / (a0 + len(a)))


def test_log_concentration_spans_one_to_exp_two_over_tau():
    cosines = torch.tensor([-1.0, 0.25, 1.0], dtype=F64)
    expected = torch.tensor([0.0, 1.25 / 0.07, 2 / 0.07], dtype=F64)
    torch.testing.assert_close(dirichlet.log_concentration(cosines), expected, rtol=1e-15, atol=0)
    torch.testing.assert_close(dirichlet.log_concentration(cosines, tau=0.5), expected * 0.14, rtol=1e-14, atol=0)
    assert dirichlet.log_concentration(cosines.bfloat16()).dtype == F32


@pytest.mark.parametrize("low,high", [(-2.0, 4.0), (0.0, 8.0)])
def test_kl_equals_torch_distributions_at_moderate_alpha(low, high):
    log_a = torch.stack([random_logs(seed, 9, low, high) for seed in range(50)])
    log_b = torch.stack([random_logs(seed, 9, low, high) for seed in range(100, 150)])
    expected = torch_kl(Dirichlet(log_a.exp()), Dirichlet(log_b.exp()))
    torch.testing.assert_close(dirichlet.kl_divergence(log_a, log_b), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype,tolerance", [(F64, 1e-11), (F32, 1e-7)])
@pytest.mark.parametrize("low,high", RANGES)
def test_kl_equals_high_precision(low, high, dtype, tolerance):
    """`distance` from near-equal pairs to unrelated ones; the reference sees the same rounded logs."""
    for distance in (1e-6, 1e-3, 0.1, 1.0, None):
        for seed, classes in enumerate((2, 5, 20)):
            log_a = random_logs(seed, classes, low, high, dtype)
            step = torch.randn(classes, generator=torch.Generator().manual_seed(seed), dtype=F64)
            other = random_logs(seed + 50, classes, low, high)
            log_b = (other if distance is None else log_a.double() + distance * step).to(dtype)
            result = dirichlet.kl_divergence(log_a[None], log_b[None])
            assert result.dtype == dtype and result.shape == (1,)
            assert float(result) == pytest.approx(exact_kl(log_a, log_b), rel=tolerance, abs=1e-30)


def test_kl_of_one_exact_evidence_change_is_of_order_c():
    """b = r a: KL -> (C - 1) / 2 (r - 1 - ln r), seven orders below what the closed form subtracts."""
    classes, log_a = 200, random_logs(0, 200, 24, 27)
    for shift in (-3.0, -1e-3, 1e-6, 0.5, 3.0):
        log_b = log_a + shift
        result = float(dirichlet.kl_divergence(log_a, log_b))
        assert result == pytest.approx(exact_kl(log_a, log_b), rel=1e-9)
        with mpmath.workdps(40):
            limit = float((classes - 1) / 2 * (mpmath.exp(shift) - 1 - shift))
        # The shift itself is rounded to a multiple of the spacing of the logs, 4e-15.
        assert result == pytest.approx(limit, rel=1e-5 + 1e-14 / abs(shift) * 1e3)


def test_kl_to_and_from_far_smaller_evidence():
    small, large = torch.full((3,), math.log(1e-3), dtype=F64), torch.full((3,), math.log(1e12), dtype=F64)
    for a, b in ((small, large), (large, small)):
        assert float(dirichlet.kl_divergence(a, b)) == pytest.approx(exact_kl(a, b), rel=1e-10)


@pytest.mark.parametrize("low,high", RANGES)
def test_gradients_equal_high_precision(low, high):
    for distance in (1e-3, 0.1, None):
        log_a = random_logs(1, 6, low, high).requires_grad_()
        other = random_logs(2, 6, low, high)
        log_b = (other if distance is None else log_a.detach() + distance * (other - other.mean())).requires_grad_()
        of_a, of_b = torch.autograd.grad(dirichlet.kl_divergence(log_a, log_b), (log_a, log_b))
        exact_a, exact_b = exact_gradients(log_a.detach(), log_b.detach())
        torch.testing.assert_close(of_a.float(), exact_a, rtol=1e-6, atol=1e-9 * float(exact_a.abs().max()))
        torch.testing.assert_close(of_b.float(), exact_b, rtol=1e-6, atol=1e-9 * float(exact_b.abs().max()))


@pytest.mark.parametrize("low,high", [(-3.0, 0.0), (0.0, 5.0), (15.0, 20.0), (24.0, 27.6)])
def test_gradcheck(low, high):
    log_a = torch.stack([random_logs(seed, 5, low, high) for seed in range(3)]).requires_grad_()
    log_b = torch.stack([random_logs(seed, 5, low, high) for seed in range(10, 13)]).requires_grad_()
    unit = float(log_b.detach().exp().sum(-1).max())  # so that one tolerance fits evidence of 0.1 and of 1e12
    assert torch.autograd.gradcheck(lambda a, b: dirichlet.kl_divergence(a, b) / unit, (log_a, log_b), atol=1e-6)
    for measure in (dirichlet.aleatoric, dirichlet.log_epistemic, dirichlet.log_alpha0):
        assert torch.autograd.gradcheck(measure, (log_a,))


def test_gradient_at_large_alpha_is_that_of_a_softmax_cross_entropy():
    log_a = random_logs(3, 200, 15, 19).requires_grad_()
    log_b = random_logs(4, 200, 15, 19)
    (gradient,) = torch.autograd.grad(dirichlet.kl_divergence(log_a, log_b), log_a)
    expected = log_b.exp().sum() * (log_a.softmax(-1) - log_b.softmax(-1))
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("classes", [10, 200, 1000])
def test_derived_identity(classes):
    """KL(Dir a || Dir b) ~ b_0 KL_cat(q || p): a categorical KL, order reversed, weighted by the evidence of b."""
    generator = torch.Generator().manual_seed(classes)
    cosines = 0.2 + 0.03 * torch.randn(8, classes, generator=generator, dtype=F64)
    log_b = dirichlet.log_concentration(cosines)
    log_a = dirichlet.log_concentration(cosines + 0.02 * torch.randn(8, classes, generator=generator, dtype=F64))
    log_p, log_q = log_a.log_softmax(-1), log_b.log_softmax(-1)
    identity = dirichlet.log_alpha0(log_b).exp() * (log_q.exp() * (log_q - log_p)).sum(-1)
    torch.testing.assert_close(dirichlet.kl_divergence(log_a, log_b), identity, rtol=1e-6, atol=0)
    wrong_order = dirichlet.log_alpha0(log_a).exp() * (log_p.exp() * (log_p - log_q)).sum(-1)
    assert ((dirichlet.kl_divergence(log_a, log_b) / wrong_order - 1).abs() > 1e-4).all()


logs = st.floats(-7.0, 27.75, width=32)  # ln alpha: from under 1e-3 to over 1e12
pairs = st.integers(2, 12).flatmap(lambda n: st.tuples(*[st.lists(logs, min_size=n, max_size=n)] * 2))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pairs, st.sampled_from([F32, F64]), st.floats(0, 1))
def test_kl_is_zero_where_equal_and_never_negative(pair, dtype, mix):
    a, b = (torch.tensor(values, dtype=dtype) for values in pair)
    b = a + mix**8 * (b - a)  # most pairs nearly equal: where the closed form returns negative noise
    value = float(dirichlet.kl_divergence(a, b))
    assert value >= 0 and math.isfinite(value)
    assert float(dirichlet.kl_divergence(a, a)) == 0
    if (a - b).abs().max() > 1e-5:
        assert value > 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(pairs, st.randoms(use_true_random=False))
def test_permutation_of_classes_changes_nothing(pair, random):
    a, b = (torch.tensor(values, dtype=F64) for values in pair)
    order = list(range(len(a)))
    random.shuffle(order)
    torch.testing.assert_close(
        dirichlet.kl_divergence(a[order], b[order]), dirichlet.kl_divergence(a, b), rtol=1e-10, atol=1e-10
    )
    for measure in (dirichlet.aleatoric, dirichlet.epistemic):
        torch.testing.assert_close(measure(a[order]), measure(a), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(logs, min_size=2, max_size=20), st.sampled_from([F32, F64]))
def test_uncertainties_equal_high_precision_and_stay_in_range(values, dtype):
    log_alpha = torch.tensor(values, dtype=dtype)
    aleatoric, epistemic = exact_uncertainty(log_alpha)
    relative, absolute = (1e-9, 1e-13) if dtype == F64 else (1e-6, 1e-12)
    result = float(dirichlet.aleatoric(log_alpha))
    assert result == pytest.approx(aleatoric, rel=relative, abs=absolute)
    assert 0 <= result <= math.log(len(values)) * (1 + relative)
    assert float(dirichlet.log_epistemic(log_alpha)) == pytest.approx(math.log(epistemic), rel=relative, abs=absolute)
    assert float(dirichlet.epistemic(log_alpha)) == pytest.approx(epistemic, rel=1e-5 if dtype == F32 else 1e-9)


def test_aleatoric_is_the_entropy_of_the_mean_at_large_alpha():
    log_alpha = torch.stack([random_logs(seed, 100, 15, 20) for seed in range(5)])
    mean = log_alpha.softmax(-1)
    entropy = -(mean * mean.log()).sum(-1)
    mutual_information = entropy - dirichlet.aleatoric(log_alpha)
    expected = 99 / 2 * torch.exp(-dirichlet.log_alpha0(log_alpha))
    torch.testing.assert_close(mutual_information, expected, rtol=1e-3, atol=1e-13)


def test_batches_broadcast_and_half_types_give_float32():
    log_a, log_b = torch.stack([random_logs(s, 4, 0, 5) for s in range(3)]), random_logs(9, 4, 0, 5)
    together = dirichlet.kl_divergence(log_a, log_b)
    for row, value in zip(log_a, together):
        assert float(dirichlet.kl_divergence(row, log_b)) == pytest.approx(float(value), rel=1e-13)
    a, b = log_a.clone().requires_grad_(), log_b.clone().requires_grad_()
    dirichlet.kl_divergence(a, b).sum().backward()
    assert a.grad.shape == a.shape and b.grad.shape == b.shape
    half = log_a.bfloat16().requires_grad_()
    result = dirichlet.kl_divergence(half, half.detach() + 1)
    assert result.dtype == F32
    result.sum().backward()
    assert half.grad.isfinite().all()
