"""A linear classifier whose nearest adversarial point is known, and every registered attack as a spec."""

from contextlib import suppress

import torch

from robustcal import registry
from robustcal.attacks.corruption import CORRUPTIONS
from robustcal.clip.classifier import LogitClassifier
from robustcal.noise import Noise
from robustcal.sweep.plan import attack_meta, threat_of
from robustcal.types import parse_radius

SIDE = 8


class Linear(torch.nn.Module):
    """Logits (f, -f, -20, -21) with f = scale * sum w (x - 0.5): classes 0 and 1 meet at f = 0.

    The weights have one sign per channel, so that attacks that move whole squares can reach the corner of the ball.
    """

    def __init__(self, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sign = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)
        weight = sign * (0.5 + torch.rand(3, SIDE, SIDE, generator=generator))
        self.register_buffer("weight", weight / weight.abs().sum() * 40)
        self.scale = scale
        self.dummy = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        f = ((images - 0.5) * self.weight).sum((1, 2, 3))
        far = torch.full_like(f, -20.0)
        return self.scale * torch.stack([f, -f, far, far - 1], 1)


def linear_classifier(scale=1.0):
    return LogitClassifier(Linear(scale), ["yes", "no", "never", "not ever"])


def samples(count, margin=1.2, seed=1):
    """Images in [0.3, 0.7] with f = +-margin exactly, their labels, and the Linf and L2 distance to the boundary."""
    generator = torch.Generator().manual_seed(seed)
    weight = Linear().weight
    images = 0.4 + 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % 2
    f = ((images - 0.5) * weight).sum((1, 2, 3))
    wanted = margin * (1 - 2.0 * labels)
    images += weight.sign() * ((wanted - f) / weight.abs().sum()).view(-1, 1, 1, 1)
    return images, labels, {"linf": margin / weight.abs().sum().item(), "l2": margin / weight.norm().item()}


def specs():
    """A spec for each registered attack: its bare name, or what it needs besides; every class of torchattacks, if here."""
    needs = {"transfer": ["transfer:from=itself"], "reprompted": ["reprompted:template=a {}"], "torchattacks": [], "corruption": [f"corruption:{name}" for name in CORRUPTIONS]}
    with suppress(ImportError):
        import torchattacks

        classes = (name for name in torchattacks.__all__ if name not in torchattacks.__wrapper__)
        needs["torchattacks"] = [f"torchattacks:{name}" for name in classes]
    found = [spec for name in registry.attacks.names() for spec in needs.get(name, [name])]
    variants = [
        "pgd:norm=l2:steps=40", "pgd:loss=margin", "pgd:loss=dlr:return=last", "pgd:momentum=0.9:restarts=2",
        "pgd:start=clean", "cw:norm=l2:steps=40", "fgsm:norm=l2", "apgd:loss=dlr", "apgd:loss=targeted:targets=3",
        "apgd:norm=l2", "apgd:return=success-else-clean:restarts=2", "square:return=success-else-clean",
        "pgd:return=success-else-last:restarts=2", "composite:components=linf:return=success-else-last",
        "composite:components=linf", "autoattack:plus", "autoattack:rand", "autoattack:paper",
        "confidence:goal=down", "confidence:goal=up", "confidence:goal=random",
        "targeted:loss=margin:norm=l2:steps=40", "multitargeted:targets=2:restarts=2:norm=l2:steps=40", "fmn:norm=l2",
        "confidence:goal=gap", "confidence:goal=known", "confidence:goal=unknown:restarts=2",
    ]  # fmt: skip
    return found + variants


#: Budgets small enough for a linear model, by attack.
SMALL = {
    "square": {"queries": 1500}, "autoattack": {"steps": 10, "queries": 300}, "apgd": {"steps": 30},
    "torchattacks:AutoAttack": {}, "torchattacks:SPSA": {"steps": 3},
}  # fmt: skip
QUICK = {"square": {"queries": 120}, "torchattacks:Square": {"queries": 60}, "torchattacks:Pixle": {"restarts": 2},
         "apgd": {"steps": 15}, "a3": {"budget": 30},
         "autoattack": {"steps": 5, "queries": 50}}  # fmt: skip


def prepare(spec, eps, quick=False):
    """(attack(classifier, images, labels, noise), threat, metadata) of a spec at a radius, with a small budget."""
    parsed = registry.attacks.spec(spec)
    plugin, arguments = registry.attacks.arguments(parsed)
    own = f"{parsed.name}:{parsed.variant}"
    small = QUICK.get(own, QUICK.get(parsed.name)) if quick else None
    for key, value in (small or SMALL.get(own, SMALL.get(parsed.name, {}))).items():
        if key in registry.attacks.get(parsed.name).parameters:
            arguments[key] = value
    threat, meta = threat_of(plugin, arguments, parse_radius(eps), SIDE), attack_meta(plugin, arguments)

    def attack(classifier, images, labels, noise, threat=threat):
        if "surrogate" in meta:
            arguments["surrogate"] = classifier
        return plugin.make(classifier, images, labels, threat, noise, **arguments)

    return attack, threat, meta


def noise(count, seed=0, first=0):
    return Noise(seed, [f"sample/{first + i}" for i in range(count)])
