"""TRADES: clean cross-entropy plus the divergence from clean to adversarial prediction (Zhang et al., ICML 2019)."""

import torch
import torch.nn.functional as F

from robustcal import register


def divergence(student, teacher, clean, labels):
    """What the inner attack maximises: images -> KL(p(clean) || p(images)), one number per image."""
    with torch.no_grad():
        target = student(clean).log_softmax(-1)
    return lambda images: kl(target, student(images).log_softmax(-1))


@register.objective(inner=divergence)
def trades(student, teacher, clean, adversarial, labels, *, beta: float = 6.0):
    """CE(l(x), y) + beta KL(p(x) || p(xa)). Both parts have shape (N,); the loss is the mean of their sum.

    Args:
        student: the classifier being trained; it has .embed, .cosines, .tokens, .scale, .head.
        teacher: the frozen original model, with the same; not used here.
        clean, adversarial: (N, 3, H, W) in [0, 1]. labels: (N,).
    """
    logits = student(clean)
    return {
        "cross_entropy": F.cross_entropy(logits, labels, reduction="none"),
        "divergence": beta * kl(logits.log_softmax(-1), student(adversarial).log_softmax(-1)),
    }


def kl(log_p, log_q):
    """KL(p || q) of log-probabilities (N, C): (N,)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
