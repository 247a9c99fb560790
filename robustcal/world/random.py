"""Counter-based random numbers: each sample has a key, and every number is a hash of (key, position).

Nothing is drawn in sequence, so a sample has the same numbers alone, in any batch and on any number of threads. Only
integer and IEEE-exact operations are used, so the numbers are the same on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Standard deviation of a sum of four independent uniform bytes.
_BYTES_STD = float(np.sqrt(4 * (256**2 - 1) / 12))


def mix(x: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser, a bijection of 64-bit words: uint64 array -> uint64 array of the same shape."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = x ^ (x >> np.uint64(31))
    return found


def sample_keys(stream: str, indices: np.ndarray) -> np.ndarray:
    """One 64-bit key per index of a named stream, such as ``0/letters/test``: (n,) uint64.

    Within a stream different indices never share a key; two streams start at unrelated places.
    """
    digest = hashlib.sha256(stream.encode()).digest()
    start, salt = np.frombuffer(digest[:16], dtype="<u8")
    return mix(mix(np.asarray(indices).astype(np.uint64) * GOLDEN + start) ^ salt)


def uniforms(keys: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1): (n, count) float64."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    return (mix(keys[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def gaussians(keys: np.ndarray, count: int) -> np.ndarray:
    """Nearly normal numbers, mean 0 and variance 1, bounded by 3.5: (n, count) float32.

    Each is the standardised sum of the four bytes of a 32-bit hash: cheap, exact in integers, and normal enough for
    sensor noise.
    """
    h = _positions(count) + (keys >> np.uint64(32)).astype(np.uint32)[:, None]
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= (keys.astype(np.uint32))[:, None]
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    pairs = h & np.uint32(0x00FF00FF)
    h >>= np.uint32(8)
    h &= np.uint32(0x00FF00FF)
    pairs += h
    total = (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))
    out = total.astype(np.float32)
    out -= np.float32(4 * 127.5)
    out *= np.float32(1 / _BYTES_STD)
    return out


def _positions(count: int) -> np.ndarray:
    return mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN).astype(np.uint32)


def balanced_labels(stream: str, n: int, classes: int) -> np.ndarray:
    """Labels of samples 0..n-1: (n,) int64.

    Every block of `classes` samples holds each class once, in random order, so every prefix is balanced within one.
    """
    blocks = -(-n // classes)
    keys = sample_keys(stream + "/labels", np.arange(blocks * classes)).reshape(blocks, classes)
    return np.argsort(keys, axis=1, kind="stable").reshape(-1)[:n]
