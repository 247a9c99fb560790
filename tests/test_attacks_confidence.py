"""Attacks on confidence keep the label; A3 and the composite attack keep their own promises."""

import colorsys
import math

import pytest
import torch
from linear_model import Linear, linear_classifier, noise, samples
from robust_net import digits_net

from robustcal.attacks import colour
from robustcal.attacks.a3 import ROUNDS
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import make_attack
from robustcal.types import Threat

EPS = 0.1


@pytest.fixture(scope="module")
def net():
    classifier, images, labels = digits_net()
    return classifier, images[:60], labels[:60]


def confidence(classifier, images):
    with torch.no_grad():
        return classifier(images).softmax(1).max(1)


@pytest.mark.parametrize("goal", ["down", "up", "max", "random"])
@pytest.mark.parametrize("start", ["clean", "uniform"])
def test_the_label_is_kept_and_the_goal_never_recedes(net, goal, start):
    classifier, images, labels = net
    before = confidence(classifier, images)
    found = make_attack(f"confidence:goal={goal}:start={start}")(classifier, images, labels, Threat(EPS), noise(60))
    after = confidence(classifier, found)
    assert torch.equal(before.indices, after.indices)
    wrong = before.indices != labels
    wanted = {
        "up": torch.ones(60), "down": torch.zeros(60), "max": wrong.float(),
        "random": noise(60).uniform((), 1 / 10 + 0.05, 0.99),
    }[goal]  # fmt: skip
    gap = (after.values - wanted).abs() - (before.values - wanted).abs()
    assert (gap <= 1e-6).all() and (gap < -1e-3).float().mean() > 0.5


def test_up_and_down_reach_the_closed_form_of_a_linear_model():
    """f +- eps ||w||_1 bounds the margin: up reaches it; down stops just before the label would flip."""
    images, labels, distance = samples(6)
    classifier, norm = linear_classifier(), Linear().weight.abs().sum()
    eps = 0.5 * distance["linf"]
    f = ((images - 0.5) * Linear().weight).sum((1, 2, 3)).abs()
    for goal, sign in (("up", 1), ("down", -1)):
        found = make_attack(f"confidence:goal={goal}")(classifier, images, labels, Threat(eps), noise(6))
        expected = torch.sigmoid(2 * (f + sign * eps * norm))
        assert torch.allclose(confidence(classifier, found).values, expected, atol=1e-4)
    found = make_attack("confidence:goal=down")(classifier, images, labels, Threat(1.5 * distance["linf"]), noise(6))
    after = confidence(classifier, found)
    assert torch.equal(after.indices, labels) and (after.values < 0.51).all()


def test_random_hits_a_confidence_that_is_reachable():
    images, labels, distance = samples(40)
    classifier = linear_classifier()
    found = make_attack("confidence:goal=random:steps=60")(
        classifier, images, labels, Threat(1.2 * distance["linf"]), noise(40)
    )
    wanted = noise(40).uniform((), 1 / 4 + 0.05, 0.99)
    reachable = (wanted > 0.52) & (wanted < 0.98)
    assert reachable.sum() > 10
    assert torch.allclose(confidence(classifier, found).values[reachable], wanted[reachable], atol=0.02)


def test_maximum_miscalibration_raises_the_calibration_error(net):
    from robustcal.metrics.calibration import expected_calibration_error as ece

    classifier, images, labels = net
    errors = []
    for spec in ("clean", "confidence:goal=up", "confidence:goal=max"):
        found = make_attack(spec)(classifier, images, labels, Threat(EPS), noise(60))
        top = confidence(classifier, found)
        errors.append(ece(top.values.double().numpy(), (top.indices == labels).numpy()))
    assert errors[2] > errors[0] + 0.1 and errors[2] > errors[1]


# -- a3 --------------------------------------------------------------------------------------------------------------


def test_a3_keeps_its_budget_and_beats_fgsm(net):
    classifier, images, labels = net
    with torch.no_grad():
        clean = classifier(images).argmax(1) == labels
    meter = Meter(classifier, len(images))
    found = make_attack("a3:budget=60")(meter, images, labels, Threat(EPS), noise(60))
    weak = make_attack("fgsm")(classifier, images, labels, Threat(EPS), noise(60))
    with torch.no_grad():
        survived, single = ((classifier(x).argmax(1) == labels) for x in (found, weak))
    longest = max(directions + steps for _, directions, steps, _ in ROUNDS)
    assert meter.counts["backwards"].sum() <= (60 + longest) * 60
    assert survived.sum() < single.sum() and not (survived & ~clean).any()
    moved = (found != images).flatten(1).any(1)
    assert torch.equal(moved, clean & ~survived)


def test_a3_attacks_the_published_share_of_the_survivors():
    class Stubborn(torch.nn.Module):
        """Nothing changes its mind, so that every image survives every round."""

        def __init__(self):
            super().__init__()
            self.sizes = []

        def forward(self, images):
            self.sizes.append(len(images))
            away = 0 * images.flatten(1).sum(1, keepdim=True)
            return torch.cat([away + 9, away, away - 1], 1)

    classifier, images = Stubborn(), torch.rand(50, 3, 4, 4)
    make_attack("a3:budget=2000")(classifier, images, torch.zeros(50, dtype=torch.long), Threat(EPS), noise(50))
    sizes, expected = iter(classifier.sizes[1:]), []
    for share, directions, steps, restarts in ROUNDS:
        for _ in range(restarts):
            expected.append(math.ceil(share * 50))
            assert {next(sizes) for _ in range(directions + steps + 1)} == {expected[-1]}
    assert expected[2:5] == [50, 35, 30] and expected[-1] == 2 and next(sizes, None) is None


def test_a3_adapts_its_directions_from_the_third_round():
    from robustcal.attacks.a3 import draw_directions

    labels, rivals = torch.zeros(200, dtype=torch.long), torch.ones(200, 1, dtype=torch.long)
    seen = [torch.tensor([[-1.0, 1.0]]).repeat(9, 1)]
    for adapted, share in ((False, 0.5), (True, 1.0)):
        weights, pair = draw_directions(noise(200), labels, rivals, 5, seen, adapted)
        assert ((pair == torch.tensor([-1.0, 1.0])).all(1).float().mean() - share**2).abs() < 0.1
        assert torch.equal(weights[:, :2].sign(), pair)


# -- composite ---------------------------------------------------------------------------------------------------------


def test_colour_round_trip_and_reference():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    hue, saturation, value = colour.rgb_to_hsv(images)
    pixel = images[2, :, 1, 3].tolist()
    found = (hue[2, 1, 3].item() / 6, saturation[2, 1, 3].item(), value[2, 1, 3].item())
    assert found == pytest.approx(colorsys.rgb_to_hsv(*pixel), abs=1e-5)
    assert torch.allclose(colour.hsv_to_rgb(hue, saturation, value), images, atol=1e-5)
    turned = colour.shift_hue(images, torch.full((5,), torch.pi * 2 / 3))
    expected = colorsys.hsv_to_rgb((found[0] + 1 / 3) % 1, *found[1:])
    assert turned[2, :, 1, 3].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "change, neutral",
    [(colour.shift_hue, 0.0), (colour.scale_saturation, 1.0), (colour.rotate, 0.0), (colour.shift_brightness, 0.0),
     (colour.scale_contrast, 1.0)],
)  # fmt: skip
def test_neutral_amounts_change_nothing_and_others_have_gradients(change, neutral):
    images = 0.2 + 0.6 * torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(change(images, torch.full((3,), neutral)), images, atol=1e-5)
    amount = torch.full((3,), neutral + 0.05, requires_grad=True)
    (gradient,) = torch.autograd.grad((change(images, amount) * images.square()).sum(), amount)
    assert gradient.isfinite().all() and (gradient != 0).all()


def test_grey_images_keep_finite_gradients():
    grey = torch.full((1, 3, 4, 4), 0.5)
    amount = torch.zeros(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(colour.scale_saturation(colour.shift_hue(grey, amount), 1 + amount).sum(), amount)
    assert gradient.isfinite().all()


def test_all_components_are_stronger_than_one(net):
    classifier, images, labels = net
    accuracy = []
    for components in ("linf", "all"):
        attack = make_attack(f"composite:components={components}")
        with torch.no_grad():
            found = attack(classifier, images, labels, Threat(0.03), noise(60))
            accuracy.append((classifier(found).argmax(1) == labels).float().mean())
    assert accuracy[1] < accuracy[0]
