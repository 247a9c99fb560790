"""Gradient sign ascent whose step shrinks linearly to zero."""

import torch
import torch.nn.functional as F

from robustcal import register


@register.attack(kind="white-box", returns="last")
def shrink(classifier, images, labels, threat, noise, *, steps: int = 10, first: float = 1.0):
    """x <- P(x + a_k sign(grad CE)), a_k = first * eps * (1 - k / steps), from a random start.

    Args:
        classifier: images (N, 3, H, W) in [0, 1] -> logits (N, C). It counts what it is asked.
        images, labels: (N, 3, H, W) and (N,); the attack may not change them in place.
        threat: .eps, .norm, .low, .high, .goal; radii are in units of pixels in [0, 1].
        noise: one random stream per image: .uniform(shape, low, high), .normal(shape), .integers(shape, high).
    """
    low = (images - threat.eps).clamp(min=threat.low)
    high = (images + threat.eps).clamp(max=threat.high)
    x = images + noise.uniform(images.shape[1:], -threat.eps, threat.eps)
    for k in range(steps):
        x = x.clamp(low, high).detach().requires_grad_(True)
        loss = F.cross_entropy(classifier(x), labels, reduction="sum")  # summed: images do not see one another
        (gradient,) = torch.autograd.grad(loss, x)
        x = x + first * threat.eps * (1 - k / steps) * gradient.sign()
    return x.detach().clamp(low, high)
