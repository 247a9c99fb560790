"""A small float64 classifier with all that objectives use, a random batch, and specs called as a trainer would."""

import inspect

import torch
import torch.nn.functional as F

from robustcal import registry

N, C, D, SIDE, GRID = 5, 6, 8, 12, 3
F64 = torch.float64


class SmallClassifier(torch.nn.Module):
    """A float64 classifier with all that objectives may use: embed, cosines, tokens, scale, head."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.pool = torch.nn.Parameter(0.1 * torch.randn(3 * SIDE * SIDE, D, generator=generator, dtype=F64))
        self.patch = torch.nn.Parameter(torch.randn(3 * (SIDE // GRID) ** 2, D, generator=generator, dtype=F64))
        shared = torch.Generator().manual_seed(99)  # the text side is one and the same for student and teacher
        self.head = F.normalize(torch.randn(C, D, generator=shared, dtype=F64), dim=-1)
        self.negative_head = F.normalize(torch.randn(C, D, generator=shared, dtype=F64), dim=-1)
        self.scale = torch.tensor(20.0, dtype=F64)
        self.num_classes = C

    def embed(self, images):
        return torch.tanh((images.double() - 0.5).flatten(1) @ self.pool) * 3

    def cosines(self, images):
        return F.normalize(self.embed(images), dim=-1) @ self.head.t()

    def forward(self, images):
        return self.scale * self.cosines(images)

    def tokens(self, images):
        return F.unfold(images.double(), SIDE // GRID, stride=SIDE // GRID).transpose(1, 2) @ self.patch


def make_case():
    """(student, teacher, clean, adversarial, labels)"""
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(N, 3, SIDE, SIDE, generator=generator, dtype=F64)
    adversarial = (clean + 0.05 * torch.randn(clean.shape, generator=generator, dtype=F64)).clamp(0, 1)
    return SmallClassifier(1), SmallClassifier(2), clean, adversarial, torch.tensor([0, 3, 5, 3, 1])


def run(spec, case):
    """The parts of an objective spec, defaults written out as the trainer would."""
    plugin, arguments = registry.objectives.arguments(registry.objectives.spec(spec))
    return plugin.make(*case, **arguments)


def inner_of(spec, case):
    """The inner loss of an objective spec, called as the trainer calls it."""
    plugin, arguments = registry.objectives.arguments(registry.objectives.spec(spec))
    inner = plugin.meta["inner"]
    student, teacher, clean, _, labels = case
    names = inspect.signature(inner).parameters
    return inner(student, teacher, clean, labels, **{k: v for k, v in arguments.items() if k in names})
