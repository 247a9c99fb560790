"""Full fp32 on GPUs. Convolutions use TF32 there unless told not to: ten bits of mantissa, which is no fp32 prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def switches() -> list[tuple[Any, str, Any]]:
    """(object, attribute, value that means full fp32). torch 2.9 gave each kind of operation a precision of its own."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [(kind, "fp32_precision", "ieee") for kind in (cudnn.conv, cudnn.rnn, matmul)]
    return [(kind, "allow_tf32", False) for kind in (cudnn, matmul)]


@contextmanager
def full_fp32() -> Iterator[None]:
    """No TF32 inside, whatever the caller's settings are; they are restored. Also a decorator: ``@full_fp32()``."""
    before = [(kind, name, getattr(kind, name)) for kind, name, _ in switches()]
    try:
        for kind, name, exact in switches():
            setattr(kind, name, exact)
        yield
    finally:
        for kind, name, value in before:
            setattr(kind, name, value)
