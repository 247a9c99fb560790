"""Test-time defences against plain loops over one image, and what all of them keep."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_clip import write_model

from robustcal.models.source import spec_identity
from robustcal.models.views import random_crops, windows
from robustcal.noise import Noise
from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)
CLASSES = ("red circle", "blue square", "cat", "dog")
DEFENCES = {
    "ttc": True, "anti-adversary": False, "anti-adversary:views=3": True, "clipure:steps=3": False, "random-padding": True,
    "entropy-tuning:views=6:neighbours=3:keep=0.4": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return f"open-clip:local-dir:{write_model(tmp_path_factory.mktemp('models') / 'base', tower='vit')}"


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def defended(spec, base):
    name, _, rest = spec.partition(":")
    return models.build(":".join(filter(None, [name, f"model={base}", rest]))).classifier(CLASSES)


@pytest.mark.parametrize("spec", DEFENCES)
def test_a_defence_is_repeatable_and_knows_no_batch(spec, base, images):
    model = defended(spec, base)
    found = model(images)
    assert found.shape == (4, 4) and not model.training and model.defence == ("randomised" if DEFENCES[spec] else "adapting",)
    assert torch.equal(model(images), found)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(found, alone, atol=2e-4, rtol=1e-4)
    with model.drawing(1):
        assert torch.equal(model(images), found) != DEFENCES[spec]
    assert torch.equal(model(images), found)
    torch.testing.assert_close(model.cosines(images) * model.scale + model.bias, found)
    x = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert (gradient.flatten(1).abs().amax(1) > 0).all() and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("spec", DEFENCES)
def test_the_seed_decides_and_every_setting_is_part_of_the_identity(spec, base, images):
    name = spec.partition(":")[0]
    seen = {spec_identity(f"{name}:model={base}")}
    plugin = models.get(name)
    for key, parameter in plugin.parameters.items():
        if key in ("model", "reference"):
            continue
        given = {"through": "false", "blank": "a cat", "keep": 0.5, "crop": 0.7}
        value = given[key] if key in given else parameter.default + 1
        seen.add(spec_identity(f"{name}:model={base}:{key}={value}"))
    assert len(seen) == 1 + len(set(plugin.parameters) - {"model", "reference"})
    if DEFENCES[spec]:
        assert not torch.equal(defended(spec, base)(images), defended(f"{spec}:seed=1", base)(images))


def test_windows_are_slices_mirrors_and_resized_images(images):
    n = torch.ones(4)
    torch.testing.assert_close(windows(images, 5 * n, 7 * n, 20 * n, 20), images[:, :, 7:27, 5:25])
    torch.testing.assert_close(windows(images, 25 * n, 7 * n, -20 * n, 20), images[:, :, 7:27, 5:25].flip(3))
    bigger = F.interpolate(images, (45, 45), mode="bilinear", align_corners=False)
    torch.testing.assert_close(windows(images, 0 * n, 0 * n, 32 * n, 45), bigger, atol=1e-5, rtol=1e-5)


def test_crops_have_the_areas_they_are_asked_for():
    """Of an image of its own coordinates, a crop's corners tell where it was."""
    ramp = torch.linspace(0.5, 31.5, 32)
    image = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])[None]
    views = random_crops(image, Noise(0, ["a"]), 200, 0.25)[0]
    width = (views[:, 0, 0, -1] - views[:, 0, 0, 0]).abs() * 32 / 31
    height = (views[:, 1, -1, 0] - views[:, 1, 0, 0]) * 32 / 31
    torch.testing.assert_close(width, height, atol=1.2, rtol=0)  # pixels at the border are repeated
    share = height.square() / 32**2
    assert share.min() > 0.22 and share.max() < 1.01 and 0.55 < share.mean() < 0.7
    assert 0.35 < ((views[:, 0, 0, -1] < views[:, 0, 0, 0]).float().mean()) < 0.65


def test_random_padding_is_resize_and_pad(base, images):
    model = defended("random-padding:enlarge=1.5", base)
    canvas, sides, lefts, tops = model.places(images)
    assert canvas == 48 and (sides >= 32).all() and (sides < 48).all() and len(set(sides.tolist())) > 1
    for image, side, left, top, found in zip(images, sides.int(), lefts.int(), tops.int(), model.padded(images)):
        small = F.interpolate(image[None], (int(side), int(side)), mode="bilinear", align_corners=False)
        expected = F.pad(small, (int(left), canvas - int(side + left), int(top), canvas - int(side + top)))
        torch.testing.assert_close(found[None], expected, atol=1e-5, rtol=1e-4)


def test_the_anti_adversary_follows_its_steps(base, images):
    model, plain = defended("anti-adversary:steps=3", base), models.build(base).classifier(CLASSES)
    for image, found in zip(images, model.anti(images)):
        x, gamma = image[None], torch.zeros(1, 3, 32, 32)
        own = plain(x).argmax(1)
        for _ in range(3):
            gamma.requires_grad_(True)
            F.cross_entropy(plain(x + gamma), own).backward()
            gamma = torch.clamp((gamma.detach() - 2 / 255 * gamma.grad.sign()).clamp(-4 / 255, 4 / 255), -x, 1 - x)
        torch.testing.assert_close(found, gamma[0], atol=1e-6, rtol=0)
    before, after = (logits.softmax(1).amax(1) for logits in (plain(images), model(images)))
    assert (after > before).all() and (model(images).argmax(1) == plain(images).argmax(1)).all()
    assert torch.allclose(defended("anti-adversary:steps=0", base)(images), plain(images), atol=1e-5)


def test_views_are_averaged_with_the_image(base, images):
    model, plain = defended("anti-adversary:steps=0:views=3:crop=0.4", base), models.build(base).classifier(CLASSES)
    crops = random_crops(images, model.noise(images), 3, 0.4)
    expected = (plain(images) + sum(plain(crops[:, i]) for i in range(3))) / 4
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


def test_purification_turns_by_the_arc_tangent_of_its_rate(base, images):
    """On the great circle through u and t a step takes the angle a to |a - arctan(rate)|; the plane is kept."""
    u = F.normalize(models.build(base).classifier(CLASSES).embed(images), dim=-1)
    for rate, steps in ((0.1, 4), (1.0, 3), (30.0, 1), (30.0, 5)):
        model = defended(f"clipure:steps={steps}:rate={rate}", base)
        angle = torch.arccos(u @ model.target)
        for _ in range(steps):
            angle = (angle - math.atan(rate)).abs()
        found = model.purify(u)
        torch.testing.assert_close(torch.arccos((found @ model.target).clamp(-1, 1)), angle, atol=3e-3, rtol=0)
        rest = found - (found @ model.target)[:, None] * model.target - 0
        side = u - (u @ model.target)[:, None] * model.target
        assert (F.cosine_similarity(rest, side).abs() > 0.999).all()


def test_two_published_steps_lead_back_and_hide_the_gradient(base, images):
    """Where the cosine with the prompt is above that of arctan 30 (0.033), as it is for images and texts of CLIP."""
    plain = models.build(base).classifier(CLASSES)
    target = F.normalize(F.normalize(plain.embed(images), dim=-1).mean(0), dim=0).detach()

    def slope(model):
        x = images.clone().requires_grad_(True)
        return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]

    found = {spec: defended(f"clipure:{spec}", base) for spec in ("steps=2", "steps=10", "steps=10:through=false", "steps=9")}
    for model in found.values():
        model.target = target
    assert (F.normalize(plain.embed(images), dim=-1) @ target > 0.04).all()
    for spec in ("steps=2", "steps=10", "steps=10:through=false"):
        torch.testing.assert_close(found[spec](images), plain(images), atol=5e-2, rtol=0)
    assert (found["steps=9"](images) - plain(images)).abs().max() > 1
    torch.testing.assert_close(slope(found["steps=2"]), slope(plain), atol=1e-2 * slope(plain).abs().max(), rtol=0)
    assert slope(found["steps=10:through=false"]).abs().max() < 1e-8 * slope(plain).abs().max()


def test_the_blank_prompt_is_the_target(base):
    model = models.build(base)
    with torch.no_grad():
        expected = F.normalize(model.clip.encode_text(model.tokenizer(["a photo of a cat"])), dim=-1)[0]
    torch.testing.assert_close(defended("clipure:blank=a photo of a cat", base).target, expected, atol=1e-6, rtol=1e-5)


def test_entropy_tuning_is_one_step_of_adam_and_weighed_views(base, images):
    spec = "entropy-tuning:views=6:neighbours=3:keep=0.4:lr=0.01:temperature=0.05:crop=0.5"
    model, plain = defended(spec, base), models.build(base).classifier(CLASSES)
    crops = random_crops(images, model.noise(images), 6, 0.5)
    for image, views, found in zip(images, crops, model(images)):
        z = F.normalize(plain.embed(torch.cat([image[None], views])), dim=-1).detach()
        shift = torch.zeros_like(plain.head).requires_grad_(True)
        adam = torch.optim.Adam([shift], lr=0.01)
        entropy = torch.distributions.Categorical(logits=plain.scale * z @ F.normalize(plain.head + shift, dim=-1).T).entropy()
        entropy.sort().values[: int(0.4 * 7)].mean().backward()
        adam.step()
        logits = plain.scale * z @ F.normalize(plain.head + shift.detach(), dim=-1).T
        score = []
        for i in range(7):
            near = sorted((float(z[i] @ z[j]) for j in range(7) if j != i), reverse=True)[:3]
            score.append(sum(near) / 3)
        weight = [math.exp(s / 0.05) for s in score]
        expected = sum(w * row for w, row in zip(weight, logits)) / sum(weight)
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-3)


def test_tuning_lowers_the_entropy_it_minimises(base, images):
    """With every view kept the mean entropy after the step is lower; without a step the head is the model's own."""
    quiet, tuned = (defended(f"entropy-tuning:views=6:keep=1:lr={lr}:crop=0.5", base) for lr in (0, 0.002))
    crops = torch.cat([images[:, None], random_crops(images, tuned.noise(images), 6, 0.5)], 1)
    z = F.normalize(tuned.deployed.embed(crops.flatten(0, 1)), dim=-1).view(4, 7, -1)
    torch.testing.assert_close(quiet.tuned(z), quiet.head.expand(4, -1, -1))
    entropies = [torch.distributions.Categorical(logits=m.scale * z @ m.tuned(z).mT).entropy().mean(1) for m in (quiet, tuned)]
    assert (entropies[1] < entropies[0]).all()


@pytest.mark.parametrize(
    "spec", ["anti-adversary:eps=0", "anti-adversary:crop=2", "clipure:steps=0", "random-padding:enlarge=1",
             "entropy-tuning:keep=0", "entropy-tuning:views=0", "entropy-tuning:temperature=0"],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(spec, base):
    name, _, setting = spec.partition(":")
    for ask in (models.build, spec_identity):
        with pytest.raises(UserError, match=f"{name} needs {setting.partition('=')[0]}"):
            ask(f"{name}:model={base}:{setting}")
