"""The engine without any real model: the judge, the meter, run_shard, planning."""

import hashlib
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from cells import cell

from robustcal.clip.classifier import LogitClassifier
from robustcal.exact import switches
from robustcal.noise import Noise
from robustcal.sweep import verify
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import attack_and_judge, make_attack, run_shard
from robustcal.sweep.samples import sample_order
from robustcal.types import Batch, Threat, UserError


@pytest.fixture
def network():
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1), torch.nn.Tanh(),
        torch.nn.Flatten(), torch.nn.Linear(8 * 16, 7),
    )  # fmt: skip
    return LogitClassifier(body, [str(i) for i in range(7)])


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(tuple(f"s/{i}" for i in range(70)), torch.rand(70, 3, 16, 16), torch.randint(0, 7, (70,)))


def test_eps_zero_equals_clean_exactly(network, batch):
    clean = run_shard(cell("clean"), batch, network, make_attack("clean"), 70)
    for spec in ("pgd:steps=5", "cw:steps=5", "fgsm", "noise"):
        attacked = run_shard(cell(spec, eps="0"), batch, network, make_attack(spec), 70)
        for column in ("prediction", "confidence", "entropy", "top_logits"):
            assert np.array_equal(clean[column], attacked[column]), (spec, column)
        assert attacked["linf"].max() == 0


@pytest.mark.parametrize("spec", ["pgd:steps=5", "cw:steps=5", "apgd:steps=10", "square:queries=30"])
def test_batch_size_does_not_change_predictions(network, batch, spec):
    attack = make_attack(spec)
    by_size = {size: run_shard(cell(spec), batch, network, attack, size) for size in (1, 7, 64)}
    flips = sum(int((by_size[size]["prediction"] != by_size[64]["prediction"]).sum()) for size in (1, 7))
    assert flips == 0
    for size in (1, 7):
        np.testing.assert_allclose(by_size[size]["confidence"], by_size[64]["confidence"], atol=1e-4)
        assert list(by_size[size]["id"]) == list(batch.ids)


def test_order_does_not_change_a_samples_result(network, batch):
    backwards = torch.arange(69, -1, -1)
    turned = Batch(batch.ids[::-1], batch.images[backwards], batch.labels[backwards])
    attack = make_attack("pgd:steps=5")
    one, other = (run_shard(cell("pgd:steps=5"), b, network, attack, 70) for b in (batch, turned))
    assert np.array_equal(one["prediction"], other["prediction"][::-1])


def test_noise_is_keyed_by_seed_and_sample():
    together = Noise(0, ["a", "b", "c"]).uniform((4,))
    assert torch.equal(Noise(0, ["c"]).uniform((4,))[0], together[2])
    assert not torch.equal(Noise(1, ["c"]).uniform((4,))[0], together[2])
    stream = Noise(0, ["a", "b"])
    first = stream.uniform((2,))
    assert torch.equal(stream.select(torch.tensor([False, True])).uniform((2,))[0], Noise(0, ["b"]).uniform((4,))[0, 2:])
    assert torch.equal(first[0], Noise(0, ["a"]).uniform((2,))[0])


def test_the_judge_projects_a_cheating_attack_and_flags_it(network, batch):
    def cheat(classifier, images, labels, threat, noise):
        wild = images + 1.0
        wild[0] = float("nan")
        wild[1] = images[1]
        return wild

    adversarial, columns = attack_and_judge(cheat, network, batch, Threat(4 / 255))
    assert (adversarial - batch.images).abs().max() <= 4 / 255 + 1e-7
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert columns["flags"][0] == "non-finite" and columns["flags"][1] == ""
    assert "outside-ball" in columns["flags"][2] and "outside-range" in columns["flags"][2]
    assert np.allclose(columns["linf"][0], 0)


def test_zero_gradients_are_counted_and_flagged(batch):
    class Flat(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :7] * (images.mean((1, 2, 3), keepdim=False) > 0.5)[:, None]

    columns = attack_and_judge(make_attack("pgd:steps=3"), LogitClassifier(Flat(), "abcdefg"), batch, Threat(1e-4))[1]
    dark = batch.images.mean((1, 2, 3)).numpy() < 0.499
    assert all("zero-gradients" in flag for flag, d in zip(columns["flags"], dark) if d)
    assert not any("zero-gradients" in flag for flag, d in zip(columns["flags"], dark) if not d and flag != "zero-gradients")
    assert (columns["zero_gradients"] > 0).any() and (columns["zero_gradients"] == 0).any()


def test_a_label_changed_by_an_attack_that_promised_not_to_is_flagged(network, batch):
    attack = make_attack("pgd:steps=5")
    flagged = attack_and_judge(attack, network, batch, Threat(0.3), keeps_label=True)[1]["flags"]
    kept = attack_and_judge(make_attack("clean"), network, batch, Threat(0.3), keeps_label=True)[1]["flags"]
    assert any("label-changed" in flag for flag in flagged) and not any(kept)


def test_an_attack_that_leaves_training_mode_is_refused(network, batch):
    def careless(classifier, images, labels, threat, noise):
        network.train()
        return images

    with pytest.raises(UserError, match="training mode"):
        attack_and_judge(careless, network, batch, Threat(0.1))
    network.eval()


@pytest.mark.parametrize("spec", ["torchattacks:PGD:steps=2", "torchattacks:DIFGSM:steps=2", "autoattack:paper"])
def test_attacks_of_libraries_leave_the_mode_of_the_classifier_alone(network, batch, spec):
    columns = run_shard(cell(spec), Batch(batch.ids[:6], batch.images[:6], batch.labels[:6]), network, make_attack(spec), 6)
    assert not network.training and columns["forwards"].min() > 0


def test_the_meter_counts_passes(network, batch):
    columns = attack_and_judge(make_attack("pgd:steps=5:return=last"), network, batch, Threat(0.1))[1]
    assert set(columns["backwards"]) == {5.0}
    assert set(columns["forwards"]) <= {5.0, 6.0}
    assert attack_and_judge(make_attack("clean"), network, batch, Threat(0))[1]["forwards"].max() == 0


def test_a_meter_spreads_the_cost_of_partial_batches(network, batch):
    meter = Meter(network, 4)
    meter(batch.images[:4])
    meter(batch.images[:2])
    assert torch.allclose(meter.counts["forwards"], torch.full((4,), 1.5))


def test_memory_running_out_halves_the_batch(network, batch, monkeypatch):
    plain = run_shard(cell("pgd:steps=2"), batch, network, make_attack("pgd:steps=2"), 7)
    sizes = []

    def greedy(classifier, images, labels, threat, noise):
        sizes.append(len(images))
        if len(images) > 7:
            raise torch.OutOfMemoryError("too much")
        return make_attack("pgd:steps=2")(classifier, images, labels, threat, noise)

    halved = run_shard(cell("pgd:steps=2"), batch, network, greedy, 28)
    assert sizes[:3] == [28, 14, 7]
    assert np.array_equal(plain["prediction"], halved["prediction"])


def test_tf32_is_off_in_attack_and_judge_and_comes_back(network, batch):
    def settings():
        return [getattr(kind, name) for kind, name, _ in switches()]

    exact = [value for _, _, value in switches()]
    seen, before = [], settings()

    def attack(classifier, images, labels, threat, noise):
        seen.append(settings())
        if len(seen) == 2:
            raise ValueError("an attack that fails")
        return images

    attack_and_judge(attack, network, batch, Threat(0.01))
    with pytest.raises(ValueError):
        attack_and_judge(attack, network, batch, Threat(0.01))
    assert seen == [exact, exact] and settings() == before != exact


def test_measure_follows_the_definitions():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    columns = verify.measure(logits, torch.tensor([0, 2]), None)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(columns["confidence"], p.max(1))
    np.testing.assert_allclose(columns["entropy"], -(p * np.log(p)).sum(1))
    np.testing.assert_allclose(columns["label_probability"], [p[0, 0], p[1, 2]])
    onehot = np.eye(3)[[0, 2]]
    np.testing.assert_allclose(columns["brier"], ((p - onehot) ** 2).sum(1))
    assert columns["correct"].tolist() == [True, False]


def test_many_classes_keep_the_rest_as_one_number():
    logits = torch.randn(5, 1300, dtype=torch.float64)
    columns = verify.measure(logits, torch.zeros(5, dtype=torch.long), None)
    assert columns["top_logits"].shape == (5, 1024)
    total = np.logaddexp(np.logaddexp.reduce(columns["top_logits"].astype(float), axis=1), columns["rest_logit"])
    np.testing.assert_allclose(total, logits.logsumexp(1).numpy(), rtol=1e-6)


def test_a_beginning_of_the_order_is_balanced_and_seeded():
    labels = np.repeat(np.arange(10), [100, 50, 30, 20, 100, 100, 5, 100, 100, 100])
    order = sample_order(labels, 0)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    assert np.bincount(labels[order[:50]]).tolist() == [5] * 10
    assert np.bincount(labels[order[:95]]).tolist() == [10] * 6 + [5] + [10] * 3
    assert not np.array_equal(order[:50], sample_order(labels, 1)[:50])


CHANGED = {"threat": Threat(0.5), "attack_version": 2, "seed": 1, "skip_unreadable": True, "record_version": 99}


def test_the_cell_id_is_a_hash_of_its_identity_alone():
    """Of all of it: each field changes it. And of nothing else of the cell."""
    one = cell()
    for field in fields(one.identity):
        other = replace(one.identity, **{field.name: CHANGED.get(field.name, "another")})
        assert other.digest() != one.id, field.name
    assert one.id == replace(one, n=5, kind="control", training={"seed": 3}).identity.digest()
    text = json.dumps(asdict(one.identity), sort_keys=True, separators=(",", ":"))
    assert one.id == hashlib.sha256(text.encode()).hexdigest()[:16]
