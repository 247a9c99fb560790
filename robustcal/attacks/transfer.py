"""Transfer attack: PGD on another model; the model under test is never queried."""

from __future__ import annotations

from torch import Tensor

from ..noise import Noise
from ..registry import register
from ..types import Classifier, Threat, UserError
from .pgd import pgd


@register.attack(kind="transfer", surrogate="from", version=1)
def transfer(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: Threat, noise: Noise, *, from_: str,
    surrogate: Classifier | None = None, steps: int = 10, step: float | None = None, loss: str = "ce",
    norm: str = "linf", restarts: int = 1, momentum: float = 1.0, return_: str = "best",
) -> Tensor:  # fmt: skip
    """PGD with momentum (MI-FGSM, Dong et al. 2018) on the surrogate; its images are returned as they are.

    Args:
        from_: model spec of the surrogate, such as ``transfer:from=clip:ViT-B-32/openai``.
        surrogate: its classifier for the same classes and prompts; built by the engine, not part of the spec.
        return_: "best" by the surrogate's loss, or "last".

    Raises:
        UserError: if no surrogate classifier was given.
    """
    if surrogate is None:
        raise UserError(f"transfer:from={from_} needs the surrogate's classifier; give it as surrogate=...")
    return pgd(
        surrogate, images, labels, threat, noise, steps=steps, step=step, loss=loss, norm=norm, restarts=restarts,
        momentum=momentum, return_=return_,
    )  # fmt: skip
