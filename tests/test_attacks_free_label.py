"""The goals of confidence under which the label may change: closed forms, brute force, and what bounds what."""

import numpy as np
import pytest
import torch
from linear_model import Linear, linear_classifier, noise, samples
from robust_net import digits_net

from robustcal.attacks.free_label import doubt, gap
from robustcal.clip.classifier import LogitClassifier
from robustcal.metrics.calibration import expected_calibration_error
from robustcal.metrics.worst import gaps, worst_calibration
from robustcal.sweep.declared import attack_meta
from robustcal.sweep.run import attack_and_judge, make_attack
from robustcal.types import Batch, Threat

GOALS = ("gap", "known", "unknown")


def value_of(goal, logits, labels):
    return {"gap": gap(logits, labels), "known": -doubt(logits), "unknown": doubt(logits)}[goal]


def test_every_goal_declares_whether_it_keeps_the_label():
    from robustcal import registry

    for goal in ("down", "up", "max", "random", *GOALS):
        meta = attack_meta(*registry.attacks.arguments(registry.attacks.spec(f"confidence:goal={goal}")))
        assert meta["keeps_label"] == (goal not in GOALS) and meta["returns"] == "best"


@pytest.mark.parametrize("share", [0.5, 1.05, 3.0])
def test_the_gap_of_a_linear_model_is_the_larger_of_two_closed_forms(share):
    """f moves by at most eps ||w||_1: right at the lowest confidence before the boundary, or wrong at the far corner."""
    images, labels, distance = samples(6)
    eps, norm = share * distance["linf"], Linear().weight.abs().sum()
    with torch.no_grad():
        found = linear_classifier()(make_attack("confidence:goal=gap")(linear_classifier(), images, labels, Threat(eps), noise(6)))
    lowest = 1.2 - eps * norm  # of the logit f towards the label
    right = 1 - torch.sigmoid(2 * lowest.clamp(min=0))
    wrong = torch.sigmoid(-2 * lowest) if lowest < 0 else torch.tensor(0.0)
    assert torch.allclose(gap(found, labels), torch.maximum(right, wrong).expand(6), atol=2e-3)
    assert (found.argmax(1) != labels).all() == (share > 1)


class Bowl(torch.nn.Module):
    """Three classes with logits that are not monotone in the two pixels that matter: a problem for a grid to solve."""

    def __init__(self):
        super().__init__()
        self.dummy = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        a, b = images[:, 0, 0, 0] - 0.5, images[:, 1, 0, 0] - 0.5
        return torch.stack([4 * a - 30 * b * b, 6 * b - 10 * a * a, -5 * a + 3 * b - 20 * a * b], 1)


@pytest.mark.parametrize("goal", GOALS)
def test_comes_near_the_optimum_that_a_grid_finds(goal):
    """The best value over a fine grid of the ball, for images all over the square; none beats it by more than its mesh."""
    eps, side = 0.12, torch.linspace(-0.12, 0.12, 121)
    images = 0.1 + 0.8 * torch.rand(40, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    classifier, short = LogitClassifier(Bowl(), ["a", "b", "c"]), torch.zeros(40)
    found = make_attack(f"confidence:goal={goal}:steps=40:restarts=2")(classifier, images, labels, Threat(eps), noise(40))
    with torch.no_grad():
        reached = value_of(goal, classifier(found), labels)
        moves = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(-1, 2)
        for row in range(40):
            grid = images[row].expand(len(moves), -1, -1, -1).clone()
            grid[:, :2, 0, 0] = (grid[:, :2, 0, 0] + moves).clamp(0, 1)
            best = value_of(goal, classifier(grid), labels[row].expand(len(moves))).max()
            short[row] = best - reached[row]
    assert (short > -0.02).all() and (short < 0.08).all() and (short < 0.01).float().mean() > 0.85


@pytest.mark.parametrize("goal", GOALS)
def test_one_image_at_a_time_gives_the_same_values(goal):
    classifier, images, labels = digits_net()
    attack, threat = make_attack(f"confidence:goal={goal}:steps=8:restarts=2"), Threat(0.1)
    whole = attack(classifier, images[:9], labels[:9], threat, noise(9))
    for size in (1, 4):
        parts = [
            attack(classifier, images[i : min(i + size, 9)], labels[i : min(i + size, 9)], threat, noise(min(size, 9 - i), first=i))
            for i in range(0, 9, size)
        ]  # fmt: skip
        same = (torch.cat(parts) - whole).flatten(1).abs().amax(1) < 1e-5
        # Where two tries come out level, the rounding of another batch size may prefer the other one: another image, the same value.
        with torch.no_grad():
            found, expected = (value_of(goal, classifier(images), labels[:9]) for images in (torch.cat(parts), whole))
        assert same.sum() >= 7 and torch.allclose(found, expected, atol=2e-3)


def test_the_gap_is_never_below_what_the_goals_that_keep_the_label_reach():
    classifier, images, labels = digits_net()
    batch = Batch(tuple(f"sample/{i}" for i in range(80)), images[:80], labels[:80])
    records = {
        spec: attack_and_judge(make_attack(spec), classifier, batch, Threat(0.1))[1]
        for spec in ("clean", "confidence:goal=max", "pgd:steps=20", "confidence:goal=gap")
    }
    free = gaps(records["confidence:goal=gap"])
    assert (free >= gaps(records["confidence:goal=max"]) - 1e-5).all() and (free >= gaps(records["clean"]) - 1e-5).all()
    errors = {spec: expected_calibration_error(r["confidence"], r["correct"]) for spec, r in records.items()}
    assert free.mean() > 0.02 + max(gaps(r).mean() for spec, r in records.items() if spec != "confidence:goal=gap")
    worst = worst_calibration(list(records.values()), list(records))
    assert np.array_equal(gaps(worst), np.max([gaps(r) for r in records.values()], axis=0))
    assert all(error <= gaps(worst).mean() for error in errors.values())


def test_goals_that_need_no_label_do_not_read_it():
    classifier, images, labels = digits_net()
    for goal in ("known", "unknown"):
        attack = make_attack(f"confidence:goal={goal}:steps=5")
        one, other = (attack(classifier, images[:6], given, Threat(0.1), noise(6)) for given in (labels[:6], (labels[:6] + 3) % 10))
        assert torch.equal(one, other)
