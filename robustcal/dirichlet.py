"""Dirichlet evidence of a CLIP classifier: log-concentrations, KL divergence, aleatoric and epistemic uncertainty.

Concentrations reach 1e12, so every function takes their natural logs, shape (..., C), and works in float64 inside
whatever the input type: differences of logs are then exact for float32 inputs, and (N, C) is small enough beside an
image tower to afford it, even on GPUs that are slow at doubles. The result has the input's type (float32 for half
types). On devices without float64 (mps) the arithmetic runs on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Coefficients c_n of Binet's remainder mu(x) = sum of c_n x^-n, odd n: what Stirling's formula leaves of lgamma.
_POWERS = (1, 3, 5, 7)
_COEFFICIENTS = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
#: From here on these four terms are exact to double precision.
_STIRLING = 30


def log_concentration(cosines: Tensor, tau: float = 0.07) -> Tensor:
    """Log-concentrations (cosine + 1) / tau of cosines in [-1, 1], so alpha lies in [1, exp(2 / tau)].

    The published code adds 1e-6 to alpha >= 1, a change of at most one part in a million; it is left out.
    Half types are widened to float32 first, for bfloat16 would round alpha by tens of per cent.
    """
    return (_at_least_float(cosines) + 1.0) / tau


def log_alpha0(log_alpha: Tensor) -> Tensor:
    """Log of the total evidence alpha_0 = sum of alpha: (..., C) -> (...)."""
    return _like(torch.logsumexp(_double(log_alpha), -1), log_alpha)


def log_epistemic(log_alpha: Tensor) -> Tensor:
    """Log of the epistemic uncertainty C / (alpha_0 + C): (..., C) -> (...), nats, < 0. About -18 for CLIP."""
    total = torch.logsumexp(_double(log_alpha), -1)
    log_c = math.log(log_alpha.shape[-1])
    return _like(log_c - torch.logaddexp(total, torch.full_like(total, log_c)), log_alpha)


def epistemic(log_alpha: Tensor) -> Tensor:
    """Epistemic uncertainty C / (alpha_0 + C) in (0, 1): (..., C) -> (...)."""
    return log_epistemic(log_alpha).exp()


def aleatoric(log_alpha: Tensor) -> Tensor:
    """Expected entropy of a categorical drawn from the Dirichlet, nats in [0, ln C]: (..., C) -> (...).

    AU = sum_k (alpha_k / alpha_0) [psi(alpha_0 + 1) - psi(alpha_k + 1)].
    """
    log_a = _double(log_alpha)
    spread = torch.digamma(log_a.logsumexp(-1, keepdim=True).exp() + 1) - torch.digamma(log_a.exp() + 1)
    return _like((log_a.softmax(-1) * spread).sum(-1).clamp_min(0), log_alpha)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(Dir(exp log_p) || Dir(exp log_q)) >= 0, nats: two (..., C) -> (...). Differentiable once in both arguments.

    The textbook form subtracts log-gammas of size 1e13 and returns noise, often negative. With a, b the two
    concentrations, p, q their means, d_k = ln(b_k / a_k), d_0 = ln(b_0 / a_0) and mu Binet's remainder, it equals

        b_0 KL_cat(q || p) + sum_k R(a_k, b_k) - R(a_0, b_0),
        R(a, b) = (exp(d) - 1 - d) / 2 + mu(b) - mu(a) - (b - a) mu'(a) >= 0,

    in which nothing large cancels: the first term is all of it for large concentrations, the rest is O(C).
    """
    divergence: Tensor = _Divergence.apply(log_p, log_q)
    return divergence


class _Divergence(torch.autograd.Function):
    """The divergence with its gradient written out; autograd through the branches below would lose accuracy."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        ctx.save_for_backward(log_p, log_q)
        log_a, log_b = _broadcast(_double(log_p), _double(log_q))
        d, d0, u = _log_ratios(log_a, log_b)
        p, q = log_a.softmax(-1), log_b.softmax(-1)
        near = u.clamp(-1, 1)
        terms = torch.where(u.abs() < 1, p * (near * near.expm1() - _exp2(near)), q * (u - 1) + p)
        leading = log_b.logsumexp(-1).exp() * terms.sum(-1)
        rest = _remainder(_with_total(log_a).exp(), torch.cat([d, d0], -1))
        divergence = leading + rest[..., :-1].sum(-1) - rest[..., -1]
        return _like(divergence.clamp_min(0), torch.promote_types(log_p.dtype, log_q.dtype), log_p.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        log_p, log_q = ctx.saved_tensors
        log_a, log_b = _broadcast(_double(log_p), _double(log_q))
        d, d0, u = _log_ratios(log_a, log_b)
        p, q = log_a.softmax(-1), log_b.softmax(-1)
        a, b, every = _with_total(log_a).exp(), _with_total(log_b).exp(), torch.cat([d, d0], -1)
        grad, of_p, of_q = _double(grad).unsqueeze(-1), None, None
        if ctx.needs_input_grad[0]:
            # d KL / d ln a_k = b_0 (p_k - q_k) + terms of order 1: the gradient of a softmax cross-entropy.
            shift = torch.where(u.abs() < 1, p * u.clamp(-1, 1).expm1(), q - p)
            small = _curvature(a) * every.expm1()
            of_p = grad * (p * small[..., -1:] - small[..., :-1] - b[..., -1:] * shift)
            of_p = _like(of_p.sum_to_size(log_p.shape), log_p)
        if ctx.needs_input_grad[1]:
            # d KL / d ln b_k = b_k u_k + terms of order 1.
            small = _slope(b) - every.exp() * _slope(a)
            of_q = grad * (q * small[..., -1:] - small[..., :-1] + b[..., :-1] * u)
            of_q = _like(of_q.sum_to_size(log_q.shape), log_q)
        return of_p, of_q


def _with_total(log_a: Tensor) -> Tensor:
    """Log-concentrations and, as the last column, the log of their sum: (..., C + 1)."""
    return torch.cat([log_a, log_a.logsumexp(-1, keepdim=True)], -1)


def _log_ratios(log_a: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d = ln(b / a), d_0 = ln(b_0 / a_0) and u = d - d_0 = ln(q / p), each to full relative precision.

    Near equality d_0 comes from the d themselves (its distance from their mean is of second order), because the
    difference of two log-sum-exps of size 28 would leave only the absolute precision.
    """
    d = log_b - log_a
    p = log_a.softmax(-1)
    mean = (p * d).sum(-1, keepdim=True)
    off = d - mean
    close = off.abs().amax(-1, keepdim=True) < 1
    second = (p * off.clamp(-1, 1).expm1()).sum(-1, keepdim=True).clamp_min(0).log1p()
    far = log_b.logsumexp(-1, keepdim=True) - log_a.logsumexp(-1, keepdim=True)
    d0 = torch.where(close, mean + second, far)
    return d, d0, torch.where(close, off - second, d - far)


def _remainder(a: Tensor, d: Tensor) -> Tensor:
    """R(a, b) >= 0 with b = a exp(d): the Bregman divergence of lgamma beyond its leading term a (r ln r - r + 1)."""
    b, rise = a * d.exp(), _exp2(d)
    large = torch.minimum(a, b) >= _STIRLING
    x, e = torch.where(large, a, _STIRLING), torch.where(large, d, 0.0)
    # The Bregman divergence of x^-n is a^-n [(exp(-n d) - 1 + n d) + n (exp(d) - 1 - d)]: no near-equal subtraction.
    # The first bracket steps from n to n + 2 by exp2(x + y) = exp2(x) + exp2(y) + expm1(x) expm1(y), all of one sign.
    fall, drop, scale = _exp2(-e), torch.expm1(-e), 1 / x
    fall2, drop2, scale2 = 2 * fall + drop**2, drop * (drop + 2), scale**2
    series = torch.zeros_like(x)
    for n, c in zip(_POWERS, _COEFFICIENTS):
        series = series + c * scale * (fall + n * rise)
        fall, drop, scale = fall + fall2 + drop * drop2, drop + drop2 + drop * drop2, scale * scale2
    if not bool(large.all()):
        series = series.masked_scatter(~large, _bregman_of_binet(a[~large], b[~large], d[~large]))
    return rise / 2 + series


def _bregman_of_binet(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """mu(b) - mu(a) - (b - a) mu'(a) for 1-D a, b of any size.

    Far apart it is computed as written. Within a factor e it is the integral of (b - a)^2 (1 - t) mu''(a + t (b - a))
    over t in [0, 1], by a 16-point Gauss rule that is exact to double precision there.
    """
    far = _binet(b, 0) - _binet(a, 0) - (b - a) * _binet(a, 1)
    step = a * d.clamp(-1, 1).expm1()
    t, weight = (torch.tensor(v, dtype=a.dtype, device=a.device) for v in _GAUSS)
    near = step**2 * (weight * (1 - t) * _binet(a.unsqueeze(-1) + step.unsqueeze(-1) * t, 2)).sum(-1)
    return torch.where(d.abs() < 1, near, far)


def _binet(x: Tensor, order: int) -> Tensor:
    """mu(x) = lgamma(x) - (x - 1/2) ln x + x - ln(2 pi) / 2, or its first or second derivative, x > 0."""
    value, small = _binet_series(x.clamp_min(_STIRLING), order), x < _STIRLING
    if not bool(small.any()):
        return value
    x = x[small]
    if order == 0:
        exact = torch.lgamma(x) - (x - 0.5) * x.log() + x - 0.5 * math.log(2 * math.pi)
    elif order == 1:
        exact = torch.digamma(x) - x.log() + 0.5 / x
    else:  # torch's trigamma has nine digits only: psi'(x) = psi'(x + 1) + 1 / x^2 takes it to where the series holds
        y = x + _STIRLING
        trigamma = sum((x + i) ** -2 for i in range(_STIRLING)) + 1 / y + 0.5 / y**2 + _binet_series(y, 2)
        exact = trigamma - 1 / x - 0.5 / x**2
    return value.masked_scatter(small, exact)


def _binet_series(x: Tensor, order: int) -> Tensor:
    """Asymptotic series of mu or a derivative, x >= 30."""
    factor = (lambda n: 1, lambda n: -n, lambda n: n * (n + 1))[order]
    inverse = 1 / x**2
    total = torch.zeros_like(x)
    for n, c in zip(reversed(_POWERS), reversed(_COEFFICIENTS)):
        total = total * inverse + c * factor(n)
    return total / x ** (1 + order)


def _curvature(x: Tensor) -> Tensor:
    """x^2 psi'(x) - x: falls from 1 at zero to 1/2 at infinity."""
    return x**2 * _binet(x, 2) + 0.5


def _slope(x: Tensor) -> Tensor:
    """x (ln x - psi(x)): falls from 1 at zero to 1/2 at infinity."""
    return 0.5 - x * _binet(x, 1)


def _exp2(x: Tensor) -> Tensor:
    """exp(x) - 1 - x >= 0 to full relative precision: a Taylor series below 0.3, where subtraction cancels."""
    near = x.clamp(-0.3, 0.3)
    series = torch.zeros_like(near)
    for n in range(14, 1, -1):
        series = series * near + 1 / math.factorial(n)
    return torch.where(x.abs() < 0.3, near**2 * series, torch.expm1(x) - x)


def _gauss_rule(n: int) -> tuple[list[float], list[float]]:
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


_GAUSS = _gauss_rule(16)


def _double(x: Tensor) -> Tensor:
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _like(x: Tensor, like: Tensor | torch.dtype, device: torch.device | None = None) -> Tensor:
    """`x` in the type (float32 at least) and on the device of `like`."""
    if isinstance(like, torch.dtype):
        return x.to(device or x.device, torch.promote_types(like, torch.float32))
    return x.to(device or like.device, torch.promote_types(like.dtype, torch.float32))


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call]  # as torch declares it
    return found
