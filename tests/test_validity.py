"""Every validity flag fires where it must and stays silent where it must; the worst case takes whole rows."""

import numpy as np
import pytest
import torch
from cells import cell as make
from linear_model import Linear, noise, samples
from scipy.stats import binomtest

from robustcal.clip.classifier import LogitClassifier
from robustcal.metrics.calibration import expected_calibration_error
from robustcal.metrics.defences import ABOVE_CLEAN, NOT_ADAPTIVE
from robustcal.metrics.validity import FLAGS, LEVEL, count_flags, cross_flags, exceeds
from robustcal.metrics.worst import gaps, worst_attack, worst_calibration, worst_case
from robustcal.sweep.run import attack_and_judge
from robustcal.types import Batch, Threat, UserError

N = 128


def cell(attack, eps="1/255", kind="white-box", **more):
    usual = {"id": f"{attack}@{eps}", "kind": kind, "n": N, "model": "m", "dataset": "d", "classnames": ("a", "b", "c")}
    return make(attack, eps, **(usual | more))


def right(count, offset=0):
    """Records in which `count` samples survive, from `offset` on."""
    correct = np.zeros(N, dtype=bool)
    correct[offset : offset + count] = True
    return {"id": np.arange(N).astype(str), "correct": correct}


def flags(*pairs):
    records = {c.id: r for c, r in pairs}
    return cross_flags([c for c, _ in pairs], records.__getitem__)


NOISE = cell("noise", kind="control")
FEW, MANY = cell("pgd:steps=10:return=last"), cell("pgd:steps=100:return=last")
SMALL, LARGE = cell("pgd:steps=10"), cell("pgd:steps=10", eps="2/255")
BLIND = cell("square:queries=100", kind="black-box")

#: flag -> (where it fires, the cell that gets it, where it does not)
CASES = {
    "weaker-than-noise": ([(FEW, right(90)), (NOISE, right(60))], FEW, [(FEW, right(60)), (NOISE, right(90))]),
    "more-steps-weaker": ([(FEW, right(40)), (MANY, right(70))], MANY, [(FEW, right(70)), (MANY, right(40))]),
    "larger-radius-weaker": (
        [(SMALL, right(40)), (LARGE, right(70))], LARGE, [(SMALL, right(70)), (LARGE, right(40))],
    ),
    "black-box-stronger": ([(FEW, right(70)), (BLIND, right(40))], FEW, [(FEW, right(40)), (BLIND, right(70))]),
    "few-classes": (
        [(cell("apgd:loss=targeted", min_classes=4), right(9))], cell("apgd:loss=targeted"),
        [(cell("apgd:loss=ce", min_classes=2), right(9))],
    ),
    "accuracy-only": (
        [(cell("autoattack", accuracy_only=True), right(9))], cell("autoattack"), [(cell("pgd"), right(9))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("flag", CASES)
def test_cell_flag_fires_and_stays_silent(flag):
    fires, which, silent = CASES[flag]
    assert {name: found for name, found in flags(*fires).items() if found} == {which.id: [flag]}
    assert not any(flags(*silent).values())


@pytest.mark.parametrize("flag", [flag for flag in CASES if flag not in ("few-classes", "accuracy-only")])
def test_sampling_noise_raises_no_flag(flag):
    """The same comparison with a difference that chance explains: five survivors more among twenty changed."""
    (a, _), (b, _) = CASES[flag][0]
    flagged = CASES[flag][1]
    weak, strong = right(60), right(60)
    weak["correct"][60:72], weak["correct"][:7] = True, False
    pairs = [(c, weak if c.id == flagged.id else strong) for c in (a, b)]
    assert not any(flags(*pairs).values())


def test_comparisons_stay_within_model_samples_norm_and_goal():
    other = cell("noise", kind="control", id="other", model="another")
    assert not any(flags((FEW, right(90)), (other, right(10))).values())
    elsewhere = {**right(10), "id": np.arange(N, 2 * N).astype(str)}
    assert not any(flags((FEW, right(90)), (NOISE, elsewhere)).values())
    wide = cell("noise:norm=l2", kind="control", norm="l2")
    assert not any(flags((FEW, right(90)), (wide, right(10))).values())
    up = cell("confidence:goal=up", goal="confidence-up")
    assert not any(flags((up, right(90)), (NOISE, right(10))).values())
    assert not any(flags((cell("pgd:steps=10:loss=dlr"), right(40)), (MANY, right(70))).values())


def test_black_box_must_beat_every_white_box_attack():
    strong = cell("apgd")
    assert not any(flags((FEW, right(70)), (strong, right(30)), (BLIND, right(40))).values())
    found = flags((FEW, right(70)), (strong, right(65)), (BLIND, right(40)))
    assert found[FEW.id] == found[strong.id] == ["black-box-stronger"]


def test_more_queries_weaker():
    longer = cell("square:queries=500", kind="black-box")
    assert flags((BLIND, right(40)), (longer, right(70)))[longer.id] == ["more-steps-weaker"]


@pytest.mark.parametrize("more, fewer", [(9, 0), (10, 0), (60, 40), (70, 30), (5, 9), (0, 0), (40_000, 39_000)])
def test_sign_test_is_the_exact_binomial(more, fewer):
    expected = more > fewer and binomtest(more, more + fewer, alternative="greater").pvalue < LEVEL
    assert exceeds(more, fewer) == expected


# -- flags of samples, set by the engine -----------------------------------------------------------------------------


class Dead(torch.nn.Module):
    """Logits without gradient: the linear model behind a rounding."""

    def __init__(self):
        super().__init__()
        self.linear = Linear()

    def forward(self, images):
        return self.linear(images).round() + 0 * images.sum((1, 2, 3))[:, None]


def judged(attack, net=None, search=torch.float32, margin=1.2, **how):
    images, labels, _ = samples(6, margin)
    batch = Batch(noise(6).ids, images, labels)
    classifier = LogitClassifier(net or Linear(), ["a", "b", "c", "d"])
    return count_flags(attack_and_judge(attack, classifier, batch, Threat(0.01), search=search, **how)[1])


def step(size):
    def attack(classifier, images, labels, threat, noise):
        x = images.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(classifier(x), labels, reduction="sum"), x)
        return images + size * g.sign()

    return attack


def idle(classifier, images, labels, threat, noise):
    return images


SAMPLE_CASES = {
    "outside-ball": (step(0.02), step(0.01), {}),
    "outside-range": (lambda c, x, y, t, n: x + 0.9, idle, {}),
    "non-finite": (lambda c, x, y, t, n: x * torch.nan, idle, {}),
    "zero-gradients": (step(0.01), idle, {"net": Dead()}),
    "label-changed": (step(0.01), idle, {"keeps_label": True, "margin": 0.05}),
}


@pytest.mark.parametrize("flag", SAMPLE_CASES)
def test_sample_flag_fires_and_stays_silent(flag):
    fires, silent, how = SAMPLE_CASES[flag]
    assert judged(fires, **how)[flag] == 6
    assert flag not in judged(silent, **how)


def test_precision_disagreement_fires_and_stays_silent():
    class Rounded(torch.nn.Module):
        """A decision that half precision gets wrong: 1 + 1/4096 is 1 in bf16."""

        def forward(self, images):
            wide = torch.nn.functional.linear(images.flatten(1)[:, :1] * 0 + 1, torch.tensor([[1 + 1 / 4096]]))
            scores = torch.cat([wide.float() - 1, torch.full_like(wide, 1e-4).float()], 1)
            return torch.nn.functional.pad(scores, (0, 2), value=-10.0)

    assert judged(idle, net=Rounded(), search=torch.bfloat16)["precision-disagreement"] == 6
    assert judged(idle, net=Rounded()) == {} and judged(idle, search=torch.bfloat16) == {}


def test_every_flag_is_documented_and_tested():
    from pathlib import Path

    elsewhere = {"precision-disagreement", "unreadable-skipped", "classes-alike", "uncertainty-suppressed"}
    assert set(FLAGS) == {*CASES, *SAMPLE_CASES, *elsewhere, NOT_ADAPTIVE, ABOVE_CLEAN}
    text = (Path(__file__).parents[1] / "docs" / "flags.md").read_text()
    for flag, (meaning, step) in FLAGS.items():
        assert f"## {flag}" in text and "\n" not in meaning + step


# -- worst case ------------------------------------------------------------------------------------------------------


def record(correct, probability, **columns):
    fixed = {"id": ["a", "b", "c", "d"], "correct": np.array(correct), "label_probability": np.array(probability)}
    return {**fixed, **columns}


def test_worst_case_prefers_wrong_then_the_highest_loss():
    one = record([True, True, False, True], [0.5, 0.6, 0.4, 0.9], confidence=np.array([0.1, 0.2, 0.3, 0.4]))
    two = record([True, False, False, True], [0.4, 0.7, 0.3, np.nan], confidence=np.array([0.5, 0.6, 0.7, 0.8]))
    two["more"] = np.zeros(4)
    assert worst_attack([one, two]).tolist() == [1, 1, 1, 0]
    found = worst_case([one, two], names=["one", "two"])
    assert found["confidence"].tolist() == [0.5, 0.6, 0.7, 0.4] and "more" not in found
    assert found["attack"].tolist() == ["two", "two", "two", "one"] and found["id"].tolist() == ["a", "b", "c", "d"]


def test_worst_case_accuracy_is_the_and_over_attacks_for_any_columns():
    draw = np.random.default_rng(0)
    records = [
        {"id": np.arange(50).astype(str).astype(object), "correct": draw.random(50) < 0.6,
         "label_probability": draw.random(50), "top_logits": draw.random((50, 7)),
         "labels": [[i] * (i % 3) for i in range(50)]}
        for _ in range(4)
    ]  # fmt: skip
    found = worst_case(records)
    assert np.array_equal(found["correct"], np.all([r["correct"] for r in records], axis=0))
    choice = worst_attack(records)
    assert np.array_equal(found["top_logits"][7], records[choice[7]]["top_logits"][7])
    assert found["labels"][5] == [5, 5]


def test_worst_calibration_takes_the_row_of_the_widest_gap():
    one = {**record([True, False, True, False], [0.9, 0.2, 0.4, 0.1]), "confidence": np.array([0.9, 0.8, 0.4, np.nan])}
    two = {**record([False, True, True, True], [0.1, 0.7, 0.3, 0.9]), "confidence": np.array([0.6, 0.7, 0.3, 0.9])}
    found = worst_calibration([one, two], ["one", "two"])
    assert list(found["attack"]) == ["two", "one", "two", "two"]
    assert np.allclose(gaps(found), [0.6, 0.8, 0.7, 0.1]) and list(found["correct"]) == [False, False, True, True]


def test_the_mean_gap_bounds_the_binned_error_of_every_choice_of_attacks():
    """Over random records, bins and choices; equal to it where all predictions are wrong."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n, bins = int(rng.integers(1, 40)), int(rng.integers(1, 30))
        ids = np.arange(n).astype(str)
        attacks = [{"id": ids, "confidence": rng.random(n), "correct": rng.random(n) < 0.5} for _ in range(3)]
        bound = gaps(worst_calibration(attacks)).mean()
        pick = rng.integers(0, 3, n)
        mixed = [np.stack([a[name] for a in attacks])[pick, np.arange(n)] for name in ("confidence", "correct")]
        assert expected_calibration_error(*mixed, bins=bins) <= bound + 1e-12
        wrong = {**attacks[0], "correct": np.zeros(n, bool)}
        assert expected_calibration_error(wrong["confidence"], wrong["correct"], bins) == pytest.approx(gaps(wrong).mean())


def test_worst_case_refuses_other_samples():
    with pytest.raises(UserError, match="same samples"):
        worst_case([record([True] * 4, [1.0] * 4), {**record([True] * 4, [1.0] * 4), "id": ["a", "b", "d", "c"]}])
    with pytest.raises(UserError, match="at least one"):
        worst_case([])
