"""Every registered attack, plugins included, against a linear classifier with a closed-form answer."""

import random

import numpy as np
import pytest
import torch
from linear_model import linear_classifier, noise, prepare, samples, specs

from robustcal import registry
from robustcal.sweep.run import attack_and_judge
from robustcal.sweep.verify import sample_flags
from robustcal.types import Batch

#: Attacks whose own rule keeps them from the nearest corner of a linear model, and why.
NOT_NEAREST = {
    "embedding": "knows no label: it leaves the clean logits on whichever side is farther",
    "torchattacks:TPGD": "ascends the divergence from the clean output, not the loss",
    "torchattacks:SPSA": "gradients estimated from finite differences of random directions",
    "torchattacks:Jitter": "adds noise to the logits",
    "torchattacks:PGDRS": "attacks the average over Gaussian noise of standard deviation 0.5",
    "torchattacks:PGDRSL2": "attacks the average over Gaussian noise of standard deviation 0.5",
    "torchattacks:FFGSM": "one step of 1.25 eps from a random start",
    "torchattacks:Square": "its windows never reach the last row and column",
    "torchattacks:GN": "random noise",
    "torchattacks:VANILA": "no attack",
}
#: Others need a little more than 1.01 of the distance: they stop by a step count, not at convergence.
SLACK = {"torchattacks:CW": 1.1, "torchattacks:EADEN": 1.1, "torchattacks:PGDL2": 1.1}
SPECS = specs()


def seeks_nearest(spec, meta, threat):
    bounded = threat.norm in ("linf", "l2", "composite")
    goal = meta.get("goal", "untargeted") == "untargeted"
    return bounded and goal and meta["kind"] not in ("clean", "control") and spec not in NOT_NEAREST


@pytest.mark.parametrize("spec", SPECS)
def test_reaches_the_nearest_adversarial_point(spec):
    """Within 1.01 of the known distance every label is flipped, at batch 1, 3 and 8; below 0.99 none is."""
    images, labels, distance = samples(8)
    attack, threat, meta = prepare(spec, "0")
    if not seeks_nearest(spec, meta, threat):
        pytest.skip(NOT_NEAREST.get(spec, "seeks no wrong label within a ball"))
    classifier = linear_classifier()
    attack, threat, _ = prepare(spec, distance.get(threat.norm, distance["linf"]) * SLACK.get(spec, 1.01))
    for batch in (1, 3, 8):
        adversarial = attack(classifier, images[:batch], labels[:batch], noise(batch))
        assert (classifier(adversarial).argmax(1) != labels[:batch]).all(), f"batch {batch}"
    if threat.norm != "composite" and not spec.startswith("torchattacks"):
        attack, threat, _ = prepare(spec, distance[threat.norm] * 0.99)
        adversarial = attack(classifier, images, labels, noise(8))
        assert (classifier(adversarial).argmax(1) == labels).all()


@pytest.mark.parametrize("spec", SPECS)
def test_proposal_keeps_the_rules(spec):
    """Shape, dtype, ball and range; global random state, mode and parameters of the model untouched; repeatable."""
    images, labels, distance = samples(5)
    attack, threat, meta = prepare(spec, distance["linf"] * 1.01, quick=True)
    classifier, clean = linear_classifier(), images.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    adversarial = attack(classifier, images, labels, noise(5))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1]) and states[2] == random.getstate()
    assert not classifier.training and all(p.grad is None for p in classifier.parameters())
    assert torch.equal(images, clean), "the attack wrote into its input"
    assert adversarial.shape == images.shape and adversarial.dtype == images.dtype and not adversarial.requires_grad
    assert not {name: mask for name, mask in sample_flags(images, adversarial, threat).items() if mask.any()}
    with torch.no_grad():  # whatever the caller's mode, the attack takes its gradients
        assert torch.equal(adversarial, attack(classifier, images, labels, noise(5)))


@pytest.mark.parametrize("spec", SPECS)
def test_passes_the_judge(spec):
    """As a sweep runs it: through the meter, then projected, predicted anew and recorded."""
    images, labels, distance = samples(5)
    attack, threat, meta = prepare(spec, distance["linf"] * 1.01, quick=True)
    batch = Batch(tuple(f"sample/{i}" for i in range(5)), images, labels)
    judged, columns = attack_and_judge(lambda *given: attack(*given[:3], given[4]), linear_classifier(), batch, threat)
    assert (columns["forwards"] > 0).all() or meta["kind"] in ("clean", "control", "shift")
    assert judged.shape == images.shape and not any("outside" in flags for flags in columns["flags"])


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith(("torchattacks", "autoattack"))])
def test_radius_zero_returns_the_clean_images(spec):
    images, labels, _ = samples(3)
    attack, threat, meta = prepare(spec, "0")
    if threat.norm not in ("linf", "l2"):
        pytest.skip("colour and rotation have no radius")
    assert torch.equal(attack(linear_classifier(), images, labels, noise(3)), images)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith(("torchattacks", "autoattack"))])
def test_batch_size_does_not_matter(spec):
    """1, 7 and 64 images at a time give the same images up to floating point."""
    attack, threat, meta = prepare(spec, 0.02, quick=True)
    if meta.get("batch_dependent"):
        pytest.skip("declares that it depends on the batch")
    images, labels, _ = samples(64)
    classifier = linear_classifier()
    whole = attack(classifier, images, labels, noise(64))
    for batch in (1, 7):
        rows = range(0, batch * 5, batch)
        parts = [attack(classifier, images[i:][:batch], labels[i:][:batch], noise(batch, first=i)) for i in rows]
        assert torch.allclose(torch.cat(parts), whole[: batch * 5], atol=1e-6), f"batch {batch}"


@pytest.mark.parametrize(
    "spec", ["cw", "pgd:loss=margin", "pgd:loss=dlr", "apgd:loss=dlr", "apgd:loss=margin", "square", "a3"]
)
def test_scaling_the_logits_leaves_margin_attacks_unchanged(spec):
    """A power of two changes no rounding, so the images are equal bit for bit."""
    images, labels, _ = samples(6)
    attack, _, _ = prepare(spec, 0.02, quick=True)
    plain = attack(linear_classifier(), images, labels, noise(6))
    assert torch.equal(plain, attack(linear_classifier(scale=64.0), images, labels, noise(6)))


def test_a_plugin_joins_the_table(tmp_path):
    """A user's file is put to the same tests by the registry alone, and a wrong attack fails them."""
    file = tmp_path / "idle.py"
    file.write_text(
        "'''An attack that does nothing.'''\n"
        "from robustcal.registry import register\n"
        "@register.attack(kind='white-box', returns='last')\n"
        "def idle(classifier, images, labels, threat, noise):\n"
        "    return images\n"
    )
    registry.load_plugin_file(file)
    try:
        assert "idle" in specs()
        with pytest.raises(AssertionError):
            test_reaches_the_nearest_adversarial_point("idle")
    finally:
        del registry.attacks.plugins["idle"]
