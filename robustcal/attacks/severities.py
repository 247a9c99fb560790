"""Parameters of the common corruptions at severities 1 to 5, as published for each size of image.

From the code released with Hendrycks and Dietterich (ICLR 2019, arXiv 1903.12261): ImageNet-C (224 pixels), Tiny-ImageNet-C
(64) and CIFAR-10-C (32). What the numbers mean is told by the function that takes them.
"""

from __future__ import annotations

import math
from typing import Any

#: The fifteen that are averaged, in the order of the paper, and the four extra ones.
MAIN = (
    "gaussian-noise", "shot-noise", "impulse-noise", "defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "snow", "frost",
    "fog", "brightness", "contrast", "elastic-transform", "pixelate", "jpeg-compression",
)  # fmt: skip
EXTRA = ("speckle-noise", "gaussian-blur", "spatter", "saturate")
#: Factors and offsets that both sizes of ImageNet have in common.
_BRIGHT, _FLAT = (0.1, 0.2, 0.3, 0.4, 0.5), (0.4, 0.3, 0.2, 0.1, 0.05)
#: Last factor and step of the zooms of the small sizes, and the layers of snow: mean, spread, zoom, threshold, radius, sigma.
_SMALL_ZOOM = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
_SMALL_SNOW = ((0.1, 0.2, 1, 0.6, 8, 3), (0.1, 0.2, 1, 0.5, 10, 4), (0.15, 0.3, 1.75, 0.55, 10, 4), (0.25, 0.3, 2.25, 0.6, 12, 6),
               (0.3, 0.3, 1.25, 0.65, 14, 12))  # fmt: skip
_LARGE_SNOW = ((0.1, 0.3, 3, 0.5, 10, 4), (0.2, 0.3, 2, 0.5, 12, 4), (0.55, 0.3, 4, 0.9, 12, 8), (0.55, 0.3, 4.5, 0.85, 12, 8),
               (0.55, 0.3, 2.5, 0.85, 12, 12))  # fmt: skip


def _with(layers: tuple[tuple[float, ...], ...], last: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    return tuple((*layer, value) for layer, value in zip(layers, last, strict=True))


#: Side in pixels -> corruption -> its parameter at each severity.
TABLES: dict[int, dict[str, tuple[Any, ...]]] = {
    224: {
        "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot-noise": (60, 25, 12, 5, 3),
        "impulse-noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus-blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass-blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion-blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom-blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": _with(_LARGE_SNOW, (0.8, 0.7, 0.7, 0.65, 0.55)),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _BRIGHT,
        "contrast": _FLAT,
        # The released code multiplies by 244, not 224.
        "elastic-transform": tuple(
            (244 * a, 244 * b, 244 * c)
            for a, b, c in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg-compression": (25, 18, 15, 10, 7),
        "speckle-noise": (0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian-blur": (1, 2, 3, 4, 6),
        "spatter": ((0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
                    (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    },
    64: {
        "gaussian-noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "shot-noise": (250, 100, 50, 30, 15),
        "impulse-noise": (0.01, 0.02, 0.05, 0.08, 0.14),
        "defocus-blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "glass-blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "motion-blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "zoom-blur": _SMALL_ZOOM,
        "snow": _with(_SMALL_SNOW, (0.8, 0.8, 0.7, 0.65, 0.6)),
        "frost": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "brightness": _BRIGHT,
        "contrast": _FLAT,
        "elastic-transform": tuple(
            (64 * a, 64 * b, 64 * c)
            for a, b, c in ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02))
        ),
        "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
        "jpeg-compression": (65, 58, 50, 40, 25),
        "speckle-noise": (0.15, 0.2, 0.25, 0.3, 0.35),
        "gaussian-blur": (0.5, 0.75, 1, 1.25, 1.5),
        "spatter": ((0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
                    (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1)),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    },
    32: {
        "gaussian-noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot-noise": (500, 250, 100, 75, 50),
        "impulse-noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus-blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass-blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion-blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom-blur": _SMALL_ZOOM,
        "snow": _with(_SMALL_SNOW, (0.95, 0.9, 0.9, 0.85, 0.8)),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic-transform": tuple(
            (32 * a, 32 * b, 32 * c)
            for a, b, c in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg-compression": (80, 65, 58, 50, 40),
        "speckle-noise": (0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian-blur": (0.4, 0.6, 0.7, 0.8, 1),
        "spatter": ((0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
                    (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1)),
        "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
}  # fmt: skip


def parameters(name: str, severity: int, side: int) -> Any:
    """The published parameter of a corruption at severity 1 to 5, of the size nearest to `side` by ratio."""
    size = min(TABLES, key=lambda known: abs(math.log(known / side)))
    return TABLES[size][name][severity - 1]
