"""Models made of models: temperature, interpolation, test-time counterattack and the attack that averages it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clip import write_model

from robustcal.clip import weights
from robustcal.models.source import spec_identity
from robustcal.models.temperature import fit_temperature
from robustcal.noise import Noise
from robustcal.registry import attacks, models, register
from robustcal.types import Batch, Threat, UserError

torch.set_num_threads(1)
CLASSES = ("red circle", "blue square", "cat", "dog")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return f"open-clip:local-dir:{write_model(tmp_path_factory.mktemp('models') / 'base', tower='vit')}"


@pytest.fixture(scope="module")
def other(base, tmp_path_factory):
    """The same model with another image tower: a stand-in for a fine-tune."""
    torch.manual_seed(5)
    state = models.build(base).clip.visual.state_dict()
    path = tmp_path_factory.mktemp("towers") / "t.safetensors"
    weights.save_state_dict({k: v + 0.02 * torch.randn_like(v) for k, v in state.items()}, path)
    folder = path.parent / "run"
    digest = weights.save_state_dict(weights.load_state_dict(path), folder / "model.safetensors")
    (folder / "card.json").write_text(f'{{"base": "{base}", "sha256": "{digest}"}}')
    return f"checkpoint:{folder}"


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def classifier(spec):
    return models.build(spec).classifier(CLASSES)


def test_given_temperature_divides_the_logits(base, images):
    plain, scaled = classifier(base)(images), classifier(f"temperature:model={base}:t=2.5")(images)
    torch.testing.assert_close(scaled, plain / 2.5)
    assert spec_identity(f"temperature:model={base}:t=2.5") != spec_identity(f"temperature:model={base}:t=2.4")
    for t in ("0", "-1", "inf", "nan"):
        with pytest.raises(UserError, match="greater than 0|not a finite number"):
            spec_identity(f"temperature:model={base}:t={t}")


def test_temperature_of_a_sigmoid_model_divides_its_bias_too(tmp_path, images):
    spec = f"open-clip:local-dir:{write_model(tmp_path / 's', tower='vit', sigmoid=True)}"
    plain, scaled = classifier(spec)(images), classifier(f"temperature:model={spec}:t=2.0")(images)
    torch.testing.assert_close(scaled, plain / 2)


def test_fitted_temperature_is_the_one_the_labels_were_drawn_with():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(20000, 5, generator=generator)
    labels = torch.multinomial(F.softmax(true, -1), 1, generator=generator)[:, 0]
    for t in (0.1, 1.0, 7.0):
        assert fit_temperature(true * t, labels) == pytest.approx(t, rel=0.03)
    fitted = fit_temperature(true, labels)
    losses = [F.cross_entropy(true.double() / (fitted * f), labels).item() for f in (0.99, 1, 1.01)]
    assert losses[1] < min(losses[0], losses[2])
    with pytest.raises(UserError, match="no temperature fits"):
        fit_temperature(F.one_hot(labels, 5).double(), labels)


LOGITS = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("factor", [1e-6, 0.01, 100, 1e6])
def test_temperature_follows_the_scale_of_the_logits(factor):
    labels = torch.multinomial(F.softmax(LOGITS, -1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    assert fit_temperature(LOGITS * factor, labels) == pytest.approx(factor * fit_temperature(LOGITS, labels), rel=1e-7)


def nearly(labels):
    """As often the largest logit as the smallest, and ever so slightly larger: the best temperature is some 1e5."""
    hot = F.one_hot(labels, 5).double()
    return torch.cat([hot[:200] * (1 + 1e-6), -hot[200:]])


UNFITTED = {
    "every label has the largest logit": lambda labels: F.one_hot(labels, 5).double(),
    "no likelier than chance": lambda labels: -F.one_hot(labels, 5).double(),
    "the same for all classes": lambda labels: torch.ones(len(labels), 5),
    "no finite likelihood": lambda labels: torch.full((len(labels), 5), math.inf),
    "beyond .* to .*": nearly,
}


@pytest.mark.parametrize("why", UNFITTED)
def test_a_temperature_that_cannot_be_fitted_says_why_and_of_which_model(why):
    labels = LOGITS.argmax(1)
    with pytest.raises(UserError, match=f"no temperature fits 'ucat': .*{why}.*t=") as told:
        fit_temperature(UNFITTED[why](labels), labels, "ucat")
    assert "\n" not in str(told.value)


class Toy:
    """A dataset whose labels are the model's own draws at a known temperature; counts what it is asked for."""

    name, classnames, templates, task, resolution, identity = "toy", CLASSES, ("a photo of a {}",), "single", 32, "v1"

    def __init__(self, logits, images):
        generator = torch.Generator().manual_seed(3)
        self.images = images
        self.labels = torch.multinomial(F.softmax(logits / 0.05, -1), 1, generator=generator)[:, 0].numpy()
        self.ids = [f"toy/{i}" for i in range(len(images))]

    def read(self, indices):
        rows = list(indices)
        return Batch(tuple(self.ids[i] for i in rows), self.images[rows], torch.from_numpy(self.labels[rows]))


def test_temperature_is_fitted_on_clean_source_data(base, monkeypatch):
    from robustcal.models import temperature as module

    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    logits = models.build(base).classifier(CLASSES, Toy.templates)(images).double()
    toy = Toy(logits, images)
    monkeypatch.setattr(module.datasets, "build", lambda spec: toy)
    monkeypatch.setattr(module.datasets, "spec", lambda spec: spec)
    spec = f"temperature:model={base}:data=toy:samples=150"
    model = models.build(spec)
    chosen = np.sort(np.random.default_rng(0).permutation(200)[:150])
    expected = fit_temperature(logits[chosen], torch.from_numpy(toy.labels[chosen]))
    assert model.temperature == pytest.approx(expected, rel=1e-4)
    scaled = model.classifier(CLASSES, Toy.templates)(images).double()
    torch.testing.assert_close(scaled, logits / model.temperature, rtol=1e-4, atol=1e-4)
    first = spec_identity(spec)
    toy.identity = "v2"
    assert spec_identity(spec) != first
    with pytest.raises(UserError, match="data=DATASET"):
        models.build(f"temperature:model={base}")
    with pytest.raises(UserError, match="fit=oracle"):
        models.build(f"temperature:model={base}:fit=oracle:data=toy")


def test_interpolation_is_linear_and_exact_at_its_ends(base, other, images):
    ends = [models.build(spec).clip.visual.state_dict() for spec in (base, other)]
    for t in (0.0, 0.25, 1.0):
        mixed = models.build(f"interpolate:a={base}:b={other}:t={t}").clip.visual.state_dict()
        for name, value in mixed.items():
            torch.testing.assert_close(value, (1 - t) * ends[0][name] + t * ends[1][name])
            if t in (0.0, 1.0):
                assert torch.equal(value, ends[int(t)][name])
    assert len({spec_identity(f"interpolate:a={base}:b={other}:t={t}") for t in (0, 0.25, 1)}) == 3
    with pytest.raises(UserError, match="between 0"):
        models.build(f"interpolate:a={base}:b={other}:t=1.5")
    with pytest.raises(UserError, match="needs 'b='"):
        models.build(f"interpolate:a={base}")


def test_interpolation_refuses_models_without_a_path_between_them(base, tmp_path):
    stranger = f"open-clip:local-dir:{write_model(tmp_path / 'x', tower='vit', seed=9)}"
    with pytest.raises(UserError, match="differ outside the image tower"):
        models.build(f"interpolate:a={base}:b={stranger}")


def test_counterattack_stays_in_its_ball_and_range_and_is_repeatable(base, images):
    model = models.build(f"ttc:model={base}:eps=4/255:threshold=10")
    defended = model.classifier(CLASSES)
    edge = images.clone()
    edge[0, :, :16], edge[0, :, 16:] = 0.0, 1.0
    delta = defended.counterattack(edge)
    assert delta.abs().max() <= 4 / 255 + 1e-7 and (edge + delta).min() >= 0 and (edge + delta).max() <= 1
    assert torch.equal(defended(images), defended(images))
    assert not torch.equal(delta, models.build(f"ttc:model={base}:seed=1").classifier(CLASSES).counterattack(edge))


@pytest.mark.parametrize("spec, role", [("model=defended", "model"), ("model=tiny-clip:reference=defended", "reference")])
def test_a_counterattack_needs_a_clip_model(spec, role, monkeypatch):
    monkeypatch.setitem(models.cards(), "defended", {"path": "defended.toml", "source": "ttc", "params": {"model": "tiny-clip"}})
    with pytest.raises(UserError, match=f"ttc cannot have '.* with TTC' as its {role}"):
        models.build(f"ttc:{spec}")


def test_counterattack_follows_the_published_steps(base, images):
    """A plain loop over one image at a time, from the same start."""
    defended = models.build(f"ttc:model={base}:steps=3:beta=1.5:threshold=10").classifier(CLASSES)
    embed = classifier(base).embed
    starts = Noise(0, defended.keys(images)).uniform((3, 32, 32), -4 / 255, 4 / 255)
    for image, start, found in zip(images, starts, defended.counterattack(images)):
        x, deltas = image[None], [torch.clamp(start[None], -image[None], 1 - image[None])]
        for _ in range(3):
            delta = deltas[-1].clone().requires_grad_(True)
            (embed(x + delta) - embed(x)).pow(2).sum().backward()
            moved = (delta.detach() + delta.grad.sign() / 255).clamp(-4 / 255, 4 / 255)
            deltas.append(torch.clamp(moved, -x, 1 - x))
        weight = [math.exp(1.5 * i) for i in range(4)]
        expected = sum(w * d for w, d in zip(weight, deltas)) / sum(weight)
        torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=0)


def test_images_that_move_under_noise_get_the_noise_alone(base, images):
    quiet = models.build(f"ttc:model={base}:threshold=0").classifier(CLASSES)
    noise = Noise(0, quiet.keys(images)).uniform((3, 32, 32), -4 / 255, 4 / 255)
    torch.testing.assert_close(quiet.counterattack(images), torch.minimum(torch.maximum(noise, -images), 1 - images))
    change = quiet.relative_change(images, torch.zeros_like(images))
    assert torch.equal(change, torch.zeros(4))


def test_counterattack_does_not_depend_on_the_batch(base, images):
    defended = models.build(f"ttc:model={base}").classifier(CLASSES)
    alone = torch.cat([defended(image[None]) for image in images])
    torch.testing.assert_close(defended(images), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(defended(images.flip(0)).flip(0), alone, atol=1e-4, rtol=1e-4)


def test_draws_are_independent_and_the_deployed_one_comes_back(base, images):
    defended = models.build(f"ttc:model={base}").classifier(CLASSES)
    deployed = defended.counterattack(images)
    with defended.drawing(1):
        first = defended.counterattack(images)
    assert not torch.equal(first, deployed) and torch.equal(defended.counterattack(images), deployed)
    nudged = images.clone()
    nudged[0, 0, 0, 0] += 1e-6
    again = defended.counterattack(nudged)
    assert not torch.allclose(again[0], deployed[0]) and torch.equal(again[1], deployed[1])


def test_reference_tower_judges_stability(base, other, images):
    own = models.build(f"ttc:model={other}").classifier(CLASSES)
    judged = models.build(f"ttc:model={other}:reference={base}").classifier(CLASSES)
    delta = torch.full_like(images, 0.01)
    expected = models.build(f"ttc:model={base}").classifier(CLASSES).relative_change(images, delta)
    torch.testing.assert_close(judged.relative_change(images, delta), expected)
    assert not torch.allclose(own.relative_change(images, delta), expected)
    assert spec_identity(f"ttc:model={other}") != spec_identity(f"ttc:model={other}:reference={base}")
    with pytest.raises(UserError, match="steps of 1 or more"):
        models.build(f"ttc:model={base}:steps=0")


def run(spec, target, images, labels, eps=4 / 255):
    family = register.attack
    plugin, arguments = family.arguments(family.spec(spec))
    noise = Noise(0, [f"s/{i}" for i in range(len(images))])
    return plugin.make(target, images, labels, Threat(eps), noise, **arguments)


def test_eot_is_pgd_on_a_model_without_randomness(base, images):
    labels = torch.tensor([0, 1, 2, 3])
    plain = classifier(base)
    for rest in ("steps=3", "steps=3:return=last"):
        assert torch.equal(*(run(f"{name}:{rest}", plain, images, labels) for name in ("eot", "pgd")))


def test_eot_never_sees_the_deployed_draw(base, images):
    defended = models.build(f"ttc:model={base}").classifier(CLASSES)
    seen = []
    original = defended.keys
    defended.keys = lambda x: seen.append(defended.draw) or original(x)
    found = run("eot:draws=3:steps=2", defended, images, torch.tensor([0, 1, 2, 3]))
    assert set(seen) == {1, 2, 3} and (found - images).abs().max() <= 4 / 255 + 1e-6 and defended.draw == 0


def test_eot_raises_the_loss_of_the_deployed_defence(base, images):
    """With noise large enough to matter, averaging finds a direction that survives a fresh draw."""
    defended = models.build(f"ttc:model={base}:eps=8/255:threshold=0").classifier(CLASSES)
    labels = defended(images).argmax(1)
    found = run("eot:draws=8:steps=10:return=last", defended, images, labels, eps=8 / 255)
    before, after = (F.cross_entropy(defended(x), labels, reduction="none") for x in (images, found))
    assert (after > before).all()


def test_transforms_are_listed():
    assert {"temperature", "interpolate", "ttc"} <= set(models.names()) and "eot" in attacks.names()
