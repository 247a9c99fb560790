"""A zero-shot classifier that knows nothing but what colours look like: no weights, no training."""

import torch

from robustcal import register
from robustcal.types import UserError

RGB = {
    "red": (0.9, 0.1, 0.1), "orange": (1.0, 0.5, 0.0), "yellow": (1.0, 0.9, 0.1), "green": (0.1, 0.7, 0.2),
    "blue": (0.1, 0.2, 0.9), "purple": (0.5, 0.1, 0.7), "pink": (1.0, 0.6, 0.8), "cyan": (0.1, 0.9, 0.9),
    "brown": (0.5, 0.3, 0.1), "white": (1.0, 1.0, 1.0), "gray": (0.5, 0.5, 0.5), "black": (0.0, 0.0, 0.0),
}  # fmt: skip


class Palette:
    """A model: a fingerprint, and a way to become a classifier once the classes are known."""

    def __init__(self, scale: float):
        self.scale, self.fingerprint = scale, f"palette 1 {scale}"

    def classifier(self, classnames, templates=()):
        """A classifier for these classes. Prompts say nothing to a model without text tower."""
        unknown = [name for name in classnames if name not in RGB]
        if unknown:
            raise UserError(f"model 'palette' knows colours only, not '{unknown[0]}'; try --datasets world-colors")
        return PaletteClassifier(classnames, self.scale, self.fingerprint)


class PaletteClassifier(torch.nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits (N, C): which colour is in the middle more than elsewhere."""

    def __init__(self, classnames, scale, fingerprint):
        super().__init__()
        self.classnames, self.num_classes, self.fingerprint = tuple(classnames), len(classnames), fingerprint
        self.logit_scale = scale
        self.register_buffer("colours", torch.tensor([RGB[name] for name in classnames]))
        self.eval()

    def forward(self, images):
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        inside = self.votes(images[..., height:-height, width:-width])
        everywhere = self.votes(images)
        return self.logit_scale * (torch.log(inside + 0.05) - torch.log(everywhere + 0.05))

    def votes(self, images):
        """Each pixel votes for the colours near it: shares (N, C)."""
        pixels = images.flatten(2).transpose(1, 2)[:, :, None]  # (N, pixels, 1, 3)
        return torch.softmax(-20 * (pixels - self.colours).square().sum(-1), dim=-1).mean(1)


@register.model
def palette(*, scale: float = 4.0) -> Palette:
    """``palette:scale=4``: the logit scale, which accuracy does not depend on and calibration does."""
    return Palette(scale)
