"""Weight interpolation between the image towers of two models of one architecture (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..clip import weights
from ..registry import register
from ..types import UserError
from . import source

if TYPE_CHECKING:
    from torch import nn

    from ..clip.classifier import ClipModel


def identity(*, a: str, b: str, t: float = 0.5) -> str:
    """Identity of both models and of the point between them."""
    return weights.digest("interpolate", source.spec_identity(a), source.spec_identity(b), check_share(t))


@register.model(identity=identity, parts=("a", "b"))
def interpolate(*, a: str, b: str, t: float = 0.5) -> ClipModel:
    """Model `a` with the image tower (1 - t) a + t b, tensor by tensor. t = 0 is a, t = 1 is b, exactly.

    Both must share architecture, text tower and logit scale: otherwise nothing lies between them. Batch-norm
    statistics, where a tower has them, are interpolated like weights.

    Args:
        a, b: model specs, such as ``tiny-clip`` and ``tiny-ucat``.
        t: share of b, in [0, 1].
    """
    check_share(t)
    first, second = source.load_base(a), source.load_base(b)
    for spec, model in ((a, first), (b, second)):
        if not hasattr(model, "clip"):
            raise UserError(f"interpolate: '{spec}' is no CLIP model")
    where = f"interpolate:a={a}:b={b}"
    check_same_text(first.clip, second.clip, where)
    towards = second.clip.visual.state_dict()
    weights.match(towards, first.clip.visual, where)
    mixed = {
        name: value.lerp(towards[name], t) if value.is_floating_point() else value
        for name, value in first.clip.visual.state_dict().items()
    }
    first.clip.visual.load_state_dict(mixed)
    first.fingerprint = weights.digest("interpolate", first.fingerprint, second.fingerprint, t)
    first.name = f"{first.name} to {second.name}, {t:g} of the way"
    return first


def check_share(t: float) -> float:
    """`t` itself. Raises `UserError` unless it lies in [0, 1]."""
    if not 0 <= t <= 1:
        raise UserError(f"interpolate t={t} is not between 0 (all a) and 1 (all b)")
    return t


def check_same_text(a: nn.Module, b: nn.Module, where: str) -> None:
    """Raise `UserError` unless everything but the image tower is equal: text tower, logit scale, bias."""
    rest = [{k: v for k, v in clip.state_dict().items() if not k.startswith("visual.")} for clip in (a, b)]
    differing = rest[0].keys() ^ rest[1].keys() or {
        k for k, v in rest[0].items() if v.shape != rest[1][k].shape or not v.equal(rest[1][k])
    }
    if differing:
        first = min(differing)
        raise UserError(f"'{where}': the models differ outside the image tower ({first}); no path joins them")
