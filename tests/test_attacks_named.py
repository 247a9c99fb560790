"""Targeted, embedding, straight-through and minimal-norm attacks against closed forms and plain loops."""

import pytest
import torch
from linear_model import Linear, linear_classifier, noise, prepare, samples
from robust_net import digits_net

from robustcal.attacks.losses import margin
from robustcal.attacks.targeted import wrong_class
from robustcal.clip.classifier import LogitClassifier
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import attack_and_judge, make_attack
from robustcal.types import Batch, Threat, UserError


def digits():
    classifier, images, labels = digits_net()
    return classifier, images[:24], labels[:24]


def test_the_target_is_the_wrong_class_of_its_rank():
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 5.0, -1.0, 4.0]])
    labels = torch.tensor([0, 1])
    for rank, expected in {1: [2, 3], 2: [3, 0], 3: [1, 2], -1: [1, 2], -3: [2, 3]}.items():
        assert wrong_class(logits, labels, rank).tolist() == expected
    for rank in (0, 4, -4):
        with pytest.raises(UserError, match="names no wrong class"):
            wrong_class(logits, labels, rank)
    with pytest.raises(UserError, match="one label per image"):
        wrong_class(logits, torch.zeros(2, 4), 1)


def test_a_targeted_attack_raises_its_own_target():
    """The least likely class is out of reach, but its log-probability rises and the wrong one in reach stays unhurt."""
    classifier, images, labels = digits()
    before = classifier(images).log_softmax(1)
    for rank in (1, -1):
        target = wrong_class(classifier(images), labels, rank)
        found = make_attack(f"targeted:rank={rank}:steps=20")(classifier, images, labels, Threat(0.05), noise(len(images)))
        after = classifier(found).log_softmax(1)
        assert (after.gather(1, target[:, None]) > before.gather(1, target[:, None])).all()


def test_more_targets_never_find_a_smaller_margin():
    """The runs for the first targets are the same, so a further one can only add."""
    classifier, images, labels = digits()
    found = [
        margin(classifier(make_attack(f"multitargeted:targets={k}:steps=5")(classifier, images, labels, Threat(0.03), noise(len(images)))), labels)
        for k in (1, 2, 9)
    ]  # fmt: skip
    assert (found[1] >= found[0]).all() and (found[2] >= found[1]).all() and (found[2] > found[0]).any()


class Line(torch.nn.Module):
    """A classifier whose embedding is one number, w x."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.weight = Linear().weight
        self.eval()

    def embed(self, images):
        return (images * self.weight).sum((1, 2, 3))[:, None]

    def forward(self, images):
        return torch.cat([self.embed(images), -self.embed(images)], 1)


def test_the_embedding_attack_reaches_the_farthest_corner_and_sees_no_label():
    """|w delta| is largest at a corner of the ball, where it is eps |w|_1."""
    images, labels, _ = samples(6)
    model = Line()
    found = make_attack("embedding:steps=20")(model, images, labels, Threat(0.02), noise(6))
    moved = (model.embed(found) - model.embed(images)).abs()[:, 0]
    torch.testing.assert_close(moved, torch.full((6,), 0.02 * float(model.weight.abs().sum())), rtol=1e-4, atol=0)
    again = make_attack("embedding:steps=20")(model, images, 1 - labels, Threat(0.02), noise(6))
    assert torch.equal(found, again)


class Rounding(torch.nn.Module):
    """A defence in front of a linear classifier: pixels rounded to 16 levels, which has no useful derivative."""

    num_classes, classnames, fingerprint, randomised = 4, ("a", "b", "c", "d"), "rounding", False

    def __init__(self):
        super().__init__()
        self.deployed = linear_classifier()
        self.eval()

    def forward(self, images):
        return self.deployed((images * 15).round() / 15)


def test_straight_through_breaks_what_hides_its_gradient():
    images, labels, _ = samples(6)
    model, threat = Rounding(), Threat(0.08)
    blind, through = (make_attack(f"{name}:steps=10")(model, images, labels, threat, noise(6)) for name in ("pgd", "bpda"))
    assert (model(images).argmax(1) == labels).all() and (model(through).argmax(1) != labels).all()
    assert (model(blind).argmax(1) == labels).all()
    plain = linear_classifier()
    same = [make_attack(f"{name}:steps=5")(plain, images, labels, threat, noise(6)) for name in ("pgd", "eot", "bpda")]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def test_passes_through_the_embedding_and_behind_a_defence_are_counted():
    images, labels, _ = samples(3)
    batch = Batch(("a", "b", "c"), images, labels)
    for model, spec, forwards in ((Line(), "embedding:steps=4:return=last", 5), (Rounding(), "bpda:steps=4:return=last", 8)):
        attack = make_attack(spec)
        columns = attack_and_judge(attack, model, batch, Threat(0.02))[1]
        assert columns["forwards"].tolist() == [forwards] * 3 and columns["backwards"].tolist() == [4] * 3
    assert not hasattr(Meter(linear_classifier(), 3), "embed")


@pytest.mark.parametrize("spec", ["fmn", "fmn:norm=l2", "ddn"])
def test_one_run_finds_the_distance_of_every_sample(spec):
    """Samples at several distances, one wrong from the start: the norms are the closed form's, whatever the large radius is."""
    margins = (0.0, 0.4, 1.2, 2.0)
    parts = [samples(2, margin=m) for m in margins]
    images, labels = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    labels[:2] = 1 - classifier_labels(images[:2])
    attack, threat, meta = prepare(spec, "0.2" if spec == "fmn" else "2")
    expected = torch.tensor([distance[threat.norm] for _, _, distance in parts]).repeat_interleave(2)
    expected[:2] = 0
    batch = Batch(tuple(map(str, range(8))), images, labels)
    judged, columns = attack_and_judge(lambda *given: attack(*given[:3], given[4]), linear_classifier(), batch, threat)
    assert not columns["correct"].any() and meta["accuracy_only"]
    torch.testing.assert_close(torch.from_numpy(columns[threat.norm]).float(), expected, rtol=3e-3, atol=1e-6)
    assert torch.equal(judged[:2], images[:2])


def classifier_labels(images):
    return linear_classifier()(images).argmax(1)


def test_beyond_the_radius_nothing_is_broken():
    images, labels, distance = samples(4)
    for spec in ("fmn", "ddn"):
        attack, threat, _ = prepare(spec, distance["linf" if spec == "fmn" else "l2"] * 0.5)
        found = attack(linear_classifier(), images, labels, noise(4))
        assert (classifier_labels(found) == labels).all()


@pytest.mark.parametrize("spec, told", [("fmn:gamma=1", "gamma"), ("ddn:steps=0", "steps"), ("fmn:norm=l1", "norm"), ("targeted:loss=dlr", "loss")])
def test_mistakes_are_one_line(spec, told):
    images, labels, _ = samples(2)
    with pytest.raises(UserError, match=told):
        make_attack(spec)(linear_classifier(), images, labels, Threat(0.1), noise(2))


def test_multi_label_data_are_refused():
    images, _, _ = samples(2)
    for spec in ("fmn", "ddn", "targeted", "multitargeted"):
        with pytest.raises(UserError, match="one label per image"):
            make_attack(spec)(LogitClassifier(Linear(), list("abcd")), images, torch.zeros(2, 4), Threat(0.1), noise(2))
