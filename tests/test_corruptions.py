"""Common corruptions against closed forms and naive loops, at the published parameters, one sample at a time or many."""

import math
import re

import numpy as np
import pytest
import torch
from linear_model import noise
from PIL import Image

from robustcal import registry
from robustcal.attacks import blurs, degradations, weather
from robustcal.attacks.corruption import CORRUPTIONS
from robustcal.attacks.severities import EXTRA, MAIN, TABLES, parameters
from robustcal.metrics.validity import HARMFUL
from robustcal.registry.suites import read_suite
from robustcal.sweep.declared import attack_meta, attacks_of, radii_of
from robustcal.sweep.run import attack_and_judge, make_attack
from robustcal.types import Batch, Threat, UserError

SIDE = 32


def stream(seed=0):
    return np.random.default_rng(seed)


def picture(side=SIDE, seed=1):
    """A coloured image of 8-bit values, smooth with some grain."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(5 * x + seed), np.cos(4 * y * x), np.sin(3 * y - 2 * x)]
    grain = stream(seed).uniform(-0.1, 0.1, (side, side, 3))
    return np.rint((0.5 + 0.35 * np.stack(waves, -1) + grain) * 255) / 255


def corrupted(spec, images, first=0):
    return make_attack(spec)(None, images, None, Threat(0.0, norm="none"), noise(len(images), first=first))


def as_images(*pictures):
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).float()


def test_nineteen_of_them_at_five_severities_in_three_sizes():
    assert len(MAIN) == 15 and len(EXTRA) == 4 and set(CORRUPTIONS) == {*MAIN, *EXTRA}
    assert all(set(table) == set(CORRUPTIONS) and all(len(row) == 5 for row in table.values()) for table in TABLES.values())
    assert parameters("contrast", 1, 224) == 0.4 and parameters("contrast", 1, 28) == 0.75
    assert parameters("pixelate", 1, 96) == 0.9 and parameters("pixelate", 1, 336) == 0.6
    asked = [str(spec) for text in read_suite("corruptions")["attacks"] for spec in attacks_of(text)]
    assert set(asked) == {"clean"} | {f"corruption:{name}:severity={s}" for name in CORRUPTIONS for s in range(1, 6)}


@pytest.mark.parametrize("name", [*MAIN, *EXTRA])
@pytest.mark.parametrize("side", [SIDE, 64])
def test_a_sample_is_the_same_alone_and_in_company_and_no_more_alike_when_severe(name, side):
    images = as_images(picture(side), picture(side, 2), picture(side, 3))
    distances = []
    for severity in (1, 5):
        spec = f"corruption:{name}:severity={severity}"
        found = corrupted(spec, images)
        assert found.shape == images.shape and found.dtype == images.dtype and found.min() >= 0 and found.max() <= 1
        assert torch.equal(found, torch.cat([corrupted(spec, images[i : i + 1], first=i) for i in range(3)]))
        distances.append((found - images).square().mean().item())
    # Severities of saturation change direction, those of elastic at small sizes trade affine for local.
    assert distances[1] > 1e-5 and (distances[1] > distances[0] or name in ("saturate", "elastic-transform", "glass-blur"))


def test_noise_has_the_published_moments():
    grey = np.full((200, 200, 3), 0.4)
    assert np.std(degradations.gaussian_noise(grey, 0.18, stream())) == pytest.approx(0.18, rel=0.02)
    assert np.std(degradations.speckle_noise(grey, 0.35, stream())) == pytest.approx(0.4 * 0.35, rel=0.02)
    counts = degradations.shot_noise(grey, 12, stream()) * 12
    assert np.allclose(counts, np.rint(counts)) and counts.mean() == pytest.approx(4.8, rel=0.02)
    assert counts.var() == pytest.approx(4.8, rel=0.03)
    hit = degradations.impulse_noise(grey, 0.09, stream())
    assert [np.mean(hit == v) for v in (0, 1)] == pytest.approx([0.045, 0.045], rel=0.1) and set(np.unique(hit)) == {0, 0.4, 1}


def test_contrast_and_colours_follow_their_formulas():
    image = picture()
    flat = degradations.contrast(image, 0.3, stream())
    assert np.allclose(flat.mean((0, 1)), image.mean((0, 1))) and np.allclose(flat.std((0, 1)), 0.3 * image.std((0, 1)))
    bright = degradations.brightness(image, 0.2, stream())
    assert np.allclose(bright.max(-1), (image.max(-1) + 0.2).clip(max=1))  # the value of HSV is the largest channel
    saturation = lambda x: 1 - x.min(-1) / x.max(-1)  # noqa: E731
    strong = degradations.saturate(image, (2, 0.1), stream())
    assert np.allclose(saturation(strong), (saturation(image) * 2 + 0.1).clip(0, 1)) and np.allclose(strong.max(-1), image.max(-1))


def test_coding_is_that_of_pillow(tmp_path):
    image = picture()
    bytes_ = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(bytes_).save(tmp_path / "x.jpg", quality=58)
    assert np.array_equal(degradations.jpeg_compression(image, 58, stream()) * 255, np.asarray(Image.open(tmp_path / "x.jpg")))
    blocks = degradations.pixelate(image, 0.25, stream())  # 32 -> 8 -> 32: means of 4 x 4 blocks
    means = image.reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(blocks - means.repeat(4, 0).repeat(4, 1)).max() <= 1.01 / 255  # Pillow rounds after each axis


def test_blurs_keep_a_constant_and_move_a_point_as_their_kernels_say():
    constant = np.full((SIDE, SIDE, 3), 0.3)
    for name in ("defocus-blur", "motion-blur", "zoom-blur", "gaussian-blur", "glass-blur"):
        found = CORRUPTIONS[name](constant, parameters(name, 5, SIDE), stream())
        assert np.abs(found - 0.3).max() < (1 / 255 if name == "glass-blur" else 1e-9)
    point = np.zeros((41, 41, 1))
    point[20, 20] = 1
    smeared = blurs.smear(point, 5, 2.0, 0.0)[20, :, 0]  # along a row, to one side
    weights = np.exp(-(np.arange(11) ** 2) / 8)
    assert np.allclose(smeared[20:9:-1], weights / weights.sum()) and smeared[21:].sum() == 0
    kernel = blurs.disk(3, 0.1)
    assert kernel.sum() == pytest.approx(1) and (kernel > 1e-6).sum() == sum(
        math.hypot(i, j) <= 3 for i in range(-3, 4) for j in range(-3, 4)
    )
    spread = blurs.gaussian_blur(np.repeat(point, 3, 2), 2.0, stream())[..., 0]
    assert (spread.sum(0) * (np.arange(41) - 20) ** 2).sum() == pytest.approx(4, rel=0.01)  # the variance of the kernel


def test_defocus_is_the_plain_average_over_the_disk():
    image, kernel = picture(20), blurs.disk(1.5, 0.1)
    found = blurs.defocus_blur(image, (1.5, 0.1), stream())
    reach = len(kernel) // 2
    mirror = lambda i: abs(i) if i < 20 else 38 - i  # noqa: E731
    for row, column in ((0, 0), (7, 19), (10, 3)):
        total = sum(
            kernel[dy + reach, dx + reach] * image[mirror(row + dy), mirror(column + dx)]
            for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)
        )  # fmt: skip
        assert np.allclose(found[row, column], total)


def test_glass_copies_near_pixels_in_the_order_of_the_published_loop():
    image, (sigma, reach, rounds) = picture(), (0.05, 1, 2)
    expected = np.floor(blurs.gaussian(image, sigma) * 255) / 255
    draws = stream(4)
    for _ in range(rounds):
        size = (SIDE - 2 * reach) ** 2
        moves = iter(draws.integers(-reach, reach, (2, size)).T)
        for h in range(SIDE - reach, reach, -1):
            for w in range(SIDE - reach, reach, -1):
                dx, dy = next(moves)
                expected[h, w] = expected[h + dy, w + dx]
    assert np.allclose(blurs.glass_blur(image, (sigma, reach, rounds), stream(4)), blurs.gaussian(expected, sigma))


def test_fog_lies_between_its_bounds_and_plasma_fills_the_range():
    field = weather.plasma(32, 2.0, stream())
    assert field.min() == 0 and field.max() == 1 and field.shape == (32, 32)
    image, amount = picture(), 1.5
    found, top = weather.fog(image, (amount, 2.0), stream()), image.max()
    dark, light = image * top / (top + amount), (image + amount) * top / (top + amount)
    assert (found >= dark - 1e-12).all() and (found <= light + 1e-12).all() and np.ptp(found - dark) > 0.3


def test_weather_whitens_and_mud_has_its_colour():
    image = picture()
    assert weather.snow(image, parameters("snow", 3, SIDE), stream()).mean() > image.mean()
    muddy = weather.spatter(np.ones((64, 64, 3)), parameters("spatter", 5, 64), stream())
    assert np.allclose(muddy[muddy[..., 0].argmin() // 64, muddy[..., 0].argmin() % 64], weather.MUD, atol=0.02)
    wet = weather.spatter(image, parameters("spatter", 1, SIDE), stream()) - image
    assert wet.min() >= -1e-12 and wet.max() == pytest.approx(0.5 * weather.WATER.max())


def test_elastic_without_amounts_is_the_identity():
    image = picture()
    assert np.allclose(degradations.elastic_transform(image, (0, 0, 0), stream()), image)


def test_graded_shifts():
    image = as_images(picture())
    assert torch.allclose(corrupted("rotation:degrees=0", image), image, atol=1e-6)
    quarter = corrupted("rotation:degrees=90", image)
    assert min((quarter - torch.rot90(image, k, (2, 3))).abs().max() for k in (1, 3)) < 1e-4
    assert torch.equal(corrupted("downscale:factor=1", image), image)
    flat = corrupted("downscale:factor=32", image)
    assert flat.std((2, 3)).max() < 1e-6
    few, many = (corrupted(f"jpeg:quality={quality}", image) for quality in (5, 95))
    assert (few - image).square().mean() > 3 * (many - image).square().mean()


def test_a_shift_is_no_attack():
    """It has no radius, is judged without a ball, never asks the model, and stands in no worst case and in no comparison."""
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec("corruption:fog:severity=5"))
    meta = attack_meta(plugin, arguments)
    assert meta["kind"] == "shift" not in HARMFUL and [str(r) for r in radii_of(registry.attacks.spec("jpeg"), [1, 2])] == ["0"]

    class Fixed(torch.nn.Module):
        num_classes = 2

        def forward(self, images):
            return images.flatten(1)[:, :2]

    images = as_images(picture(), picture(seed=2))
    batch = Batch(("sample/0", "sample/1"), images, torch.tensor([0, 1]))
    judged, columns = attack_and_judge(make_attack("corruption:fog:severity=5"), Fixed().eval(), batch, Threat(0.0, norm="none"))
    assert torch.allclose(judged, corrupted("corruption:fog:severity=5", images), atol=1e-6)
    assert columns["flags"] == ["", ""] and (columns["forwards"] == 0).all() and (columns["linf"] > 0.1).all()


@pytest.mark.parametrize(
    "spec, says",
    [("corruption", "needs a name"), ("corruption:frog", "did you mean 'corruption:f"), ("corruption:fog:severity=6", "1 to 5")],
)
def test_what_does_not_exist_is_told_before_anything_runs(spec, says):
    with pytest.raises(UserError, match=re.escape(says)):
        attack_meta(*registry.attacks.arguments(registry.attacks.spec(spec)))
