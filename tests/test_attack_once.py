"""`robustcal.attack` on a user's own network: no class names, no number of classes, any shape of image."""

import pytest
import torch

import robustcal
from robustcal.types import UserError

SPECS = [
    "clean", "noise", "fgsm", "pgd:steps=2", "pgd:norm=l2:steps=2", "cw:steps=2", "apgd:steps=5", "square:queries=9",
    "autoattack:paper:steps=3", "autoattack:steps=3:queries=9", "torchattacks:PGD:steps=2", "torchattacks:DeepFool",
    "confidence:steps=2", "a3:budget=9", "composite:steps=2", "eot:draws=2:steps=2",
]  # fmt: skip


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 5, 3, 2), torch.nn.Tanh(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture
def images():
    return torch.rand(4, 3, 17, 23, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", SPECS)
def test_every_attack_takes_a_plain_module(spec, network, images):
    labels = network(images).argmax(1)
    found = robustcal.attack(spec, network, images, labels, eps="8/255", seed=1)
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    if not spec.startswith("composite") and "l2" not in spec and "DeepFool" not in spec:
        assert (found - images).abs().max() <= 8 / 255 + 1e-6
    assert not network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert torch.equal(found, robustcal.attack(spec, network, images, labels, eps="8/255", seed=1))


def test_several_radii_in_one_call(network, images):
    labels = network(images).argmax(1)
    found = robustcal.attack("pgd:steps=2", network, images, labels, eps=["1/255", "8/255"])
    assert list(found) == ["1/255", "8/255"] and (found["1/255"] != found["8/255"]).any()
    for radius, attacked in found.items():
        assert torch.equal(attacked, robustcal.attack("pgd:steps=2", network, images, labels, eps=radius))


def test_multi_hot_labels_of_a_plain_module(network, images):
    labels = torch.zeros(4, 5).scatter_(1, network(images).topk(2).indices, 1.0)
    found = robustcal.attack("pgd:steps=2", network, images, labels, eps="8/255")
    assert (found != images).any()


@pytest.mark.parametrize("wrong, hint", [
    ({"images": torch.rand(4, 3, 17, 23) * 255}, r"\[0, 1\]"), ({"images": torch.rand(0, 3, 8, 8)}, "images must be"),
    ({"labels": torch.tensor([0, 1, 2, 5])}, "5 classes"), ({"labels": torch.tensor([0, 1, -1, 2])}, "5 classes"),
    ({"labels": torch.zeros(4, 3)}, "multi-hot"), ({"labels": torch.zeros(3, dtype=torch.long)}, "labels must be"),
    ({"labels": torch.zeros(4)}, "labels must be"), ({"eps": "big"}, "not a number"), ({"eps": 2}, "2/255"),
    ({"ids": ["a"]}, "1 ids for 4"), ({"spec": "pdg"}, "did you mean"), ({"spec": "transfer:from=tiny-clip"}, "class names"),
])  # fmt: skip
def test_what_cannot_be_attacked_is_one_line(wrong, hint, network, images):
    given = {"spec": "pgd:steps=1", "images": images, "labels": torch.zeros(4, dtype=torch.long), "eps": "1/255", **wrong}
    with pytest.raises(UserError, match=hint) as error:
        robustcal.attack(given.pop("spec"), network, given.pop("images"), given.pop("labels"), **given)
    assert "\n" not in str(error.value)


def test_training_mode_and_odd_outputs_are_refused(network, images):
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(UserError, match="eval"):
        robustcal.attack("pgd", network.train(), images, labels, eps="1/255")
    with pytest.raises(UserError, match="logits"):
        robustcal.attack("pgd", torch.nn.Identity().eval(), images, labels, eps="1/255")
