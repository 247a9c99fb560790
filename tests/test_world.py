"""The rendered world: same bits however it is read, labels true by construction, streams apart."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcal.datasets.digits import enlarge
from robustcal.datasets.world import SPLITS, SUBSETS, World, world
from robustcal.registry import datasets
from robustcal.types import Dataset, UserError
from robustcal.world import atlas as world_atlas
from robustcal.world.atlas import EXTENT, TILE, atlas
from robustcal.world.attributes import (
    COLOR_VALUES,
    COLORS,
    HELD_OUT_PAIRS,
    SHAPES,
    SOURCE_PAIRS,
    TEXTURES,
)  # fmt: skip
from robustcal.world.random import balanced_labels, gaussians, sample_keys, uniforms
from robustcal.world.render import Scenes, render
from robustcal.world.scenes import draw_scenes

CARDS = [f"world-{subset}" for subset in SUBSETS] + ["digits"]


# -- the same bits ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CARDS)
def test_a_sample_alone_has_the_bits_it_has_in_a_batch(name):
    data = datasets.build(name)
    whole = data.read(range(150))
    for index in range(0, 150, 11):
        alone = data.read([data.ids.index(whole.ids[index])])
        assert alone.ids == (whole.ids[index],)
        assert torch.equal(alone.images[0], whole.images[index])
        assert alone.labels[0] == whole.labels[index] == data.labels[index]
    order = np.random.default_rng(0).permutation(150)[:70]
    assert torch.equal(data.read(order).images, whole.images[order])


def test_pixels_do_not_depend_on_size_or_on_threads():
    few, many = world(variant="letters", size=40), world(variant="letters", size=700)
    assert few.ids == many.ids[:40] and (few.labels == many.labels[:40]).all()
    images, before = few.read(range(40)).images, torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(images, many.read(range(700)).images[:40])
    finally:
        torch.set_num_threads(before)


def test_the_pixels_are_the_published_ones():
    """A change of any pixel or label must raise `world.VERSION`, since records name samples by id."""
    digest = hashlib.sha256()
    for subset in SUBSETS:
        batch = world(variant=subset).read(range(130))
        digest.update((batch.images * 255).round().byte().numpy().tobytes() + batch.labels.numpy().tobytes())
    assert digest.hexdigest() == "902b482510b3ea6d724db15bea9b82edd113070a644cfda13490ac5adabe2a71"


def test_another_process_renders_the_same():
    code = (
        "from robustcal.datasets.world import world; import hashlib;"
        "print(hashlib.sha256(world(variant='digits').read([7, 3]).images.numpy().tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = world(variant="digits").read([7, 3]).images.numpy().tobytes()
    assert other == hashlib.sha256(here).hexdigest()


# -- streams and labels ----------------------------------------------------------------------------------------------
def test_streams_are_disjoint():
    streams = [f"{seed}/{subset}/{split}" for seed in (0, 1) for subset in SUBSETS for split in SPLITS]
    streams += [f"{seed}/captions/{split}" for seed in (0, 1) for split in ("train", "val")]
    keys = np.concatenate([sample_keys(stream, np.arange(4000)) for stream in streams])
    assert len(np.unique(keys)) == len(keys)


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_image_of_a_split_is_in_another(split):
    other = {image.tobytes() for image in world(variant="source", split=split).read(range(300)).images.numpy()}
    assert not other & {image.tobytes() for image in world(variant="source").read(range(300)).images.numpy()}


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 700), classes=st.integers(2, 100), stream=st.text(max_size=8))
def test_every_prefix_is_balanced(n, classes, stream):
    counts = np.bincount(balanced_labels(stream, n, classes), minlength=classes)
    assert counts.sum() == n and counts.max() - counts.min() <= 1 and len(counts) == classes


@pytest.mark.parametrize("name", CARDS)
def test_a_card_builds_what_it_says(name):
    data, card = datasets.build(name), datasets.cards()[name]
    assert isinstance(data, Dataset)
    assert (data.name, data.task, data.resolution) == (name, card["task"], card["resolution"])
    assert len(data.classnames) == len(set(data.classnames)) == card["classes"]
    assert len(data.ids) == len(set(data.ids)) == len(data.labels) == card["size"]
    assert set(np.unique(data.labels)) == set(range(card["classes"]))
    assert list(data.templates) == card["templates"]
    images = data.read(range(64)).images
    assert images.dtype == torch.float32 and images.shape == (64, 3, 32, 32)
    assert images.min() >= 0 and images.max() <= 1 and images.std(dim=(1, 2, 3)).min() > 0.01


def test_source_and_compositions_share_no_pair():
    assert len(SOURCE_PAIRS) == 100 and len(HELD_OUT_PAIRS) == 92 and not set(SOURCE_PAIRS) & set(HELD_OUT_PAIRS)


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_scene_shows_the_label(subset):
    data = world(variant=subset)
    _, values = data.scenes(np.arange(500))
    names = {"source": "composition", "compositions": "composition"}.get(subset, subset.rstrip("s"))
    if names == "composition":
        shown = [f"{COLORS[c]} {SHAPES[s]}" for s, c in zip(values["shape"], values["color"])]
    else:
        shown = [data.classnames[value] for value in values[names]]
    assert shown == [data.classnames[label] for label in data.labels[:500]]
    assert (values["background"] != values["color"]).all()
    assert all(len(np.unique(values[key])) > 1 for key in ("color", "texture", "size", "background"))


# -- what the pixels show --------------------------------------------------------------------------------------------
def test_a_plain_object_has_its_colour():
    n, solid = len(COLORS), TEXTURES.index("solid")
    every, zero = np.arange(n), np.zeros(n, int)
    keys = sample_keys("colour test", every)
    images = render(Scenes(keys, zero, every, zero + solid, (every + 1) % n, zero + 2), difficulty=0.0)
    for image, color in zip(images, COLOR_VALUES.values()):
        assert np.abs(image[:, 16, 16] / 255 - color).max() <= 0.5 / 255 + 1e-6
        assert np.abs(image[:, 0, 0].astype(int) - image[:, 16, 16]).max() > 20


@pytest.mark.parametrize("kind, classes", [("shape", 16), ("letter", 26), ("digit", 10)])
def test_an_undisturbed_outline_is_the_nearest_of_its_atlas(kind, classes):
    """Cut the object out of an easy image by its paint and compare it with every outline: the label must win."""
    labels = np.repeat(np.arange(classes), 4)
    keys = sample_keys(f"{kind} test", np.arange(len(labels)))
    plain = {kind: labels, "color": labels * 0 + COLORS.index("white"), "texture": labels * 0}
    scenes, _ = draw_scenes(keys, kind, plain)
    black = np.full(len(labels), COLORS.index("black"))
    scenes = Scenes(keys, scenes.tile, scenes.color, scenes.texture, black, labels * 0 + 2)
    pixels = render(scenes, difficulty=0.0).mean(axis=1) / 255
    outlines = (atlas().reshape(-1, TILE, TILE) > 0).astype(float)
    owners = np.array([_owner(tile) for tile in range(world_atlas.TILES)], dtype=object)
    rows = [tile for tile in range(len(owners)) if owners[tile][0] == kind]
    right = 0
    for image, label in zip(pixels, labels):
        scores = [-np.square(_as_tile(image) - outlines[tile]).mean() for tile in rows]
        right += owners[rows[int(np.argmax(scores))]][1] == label
    assert right >= 0.95 * len(labels)


def _owner(tile: int) -> tuple[str, int]:
    if tile < world_atlas.FIRST_LETTER:
        return "shape", tile
    if tile < world_atlas.FIRST_DIGIT:
        return "letter", (tile - world_atlas.FIRST_LETTER) // len(world_atlas.FONTS)
    return "digit", (tile - world_atlas.FIRST_DIGIT) // world_atlas.DIGIT_STYLES


def _as_tile(image: np.ndarray) -> np.ndarray:
    """An image whose object has half size 0.76 of the image, resampled to the frame of the atlas."""
    place = ((np.arange(TILE) + 0.5) / TILE * 2 - 1) * EXTENT * 0.76
    pixel = np.clip(np.round((place + 1) * 16 - 0.5), 0, 31).astype(int)
    return image[np.ix_(pixel, pixel)] > 0.5


def test_difficulty_disturbs_more_and_more():
    data = world(variant="shapes")
    easy, medium, hard = (data.read(range(200), difficulty=d).images for d in (0.0, 0.5, 1.0))
    roughness = [(x[..., 1:] - x[..., :-1]).abs().median().item() for x in (easy, medium, hard)]
    assert roughness[0] < roughness[1] < roughness[2]


# -- random numbers --------------------------------------------------------------------------------------------------
def test_the_random_numbers_are_uniform_normal_and_uncorrelated():
    keys = sample_keys("statistics", np.arange(4000))
    u, g = uniforms(keys, 64), gaussians(keys, 64)
    assert u.min() >= 0 and u.max() < 1
    assert np.histogram(u, 20, (0, 1))[0].std() < 3 * np.sqrt(u.size / 20)
    assert abs(g.mean()) < 0.01 and abs(g.std() - 1) < 0.01 and np.abs(g).max() < 3.5
    for numbers in (u, g):
        across = np.corrcoef(numbers.T) - np.eye(64)
        assert np.abs(across).max() < 6 / np.sqrt(len(keys))
        assert np.abs(np.corrcoef(numbers[:200]) - np.eye(200)).max() < 6 / np.sqrt(64)


# -- real digits -----------------------------------------------------------------------------------------------------
def test_handwritten_digits_keep_their_grey_levels():
    data = datasets.build("digits")
    images = data.read(range(len(data))).images
    assert len(data) == 1797 and images.min() == 0 and images.max() == 1
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
    assert (np.bincount(data.labels) > 150).all()
    assert np.allclose(enlarge(np.ones((2, 8, 8), np.float32))[:, 4:-4, 4:-4], 1)
    centres = images[:, 0, 5:28:3, 5:28:3].numpy()  # the middle of each enlarged pixel is the pixel itself
    assert np.allclose(centres, data.scans, atol=1e-6)


# -- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spec, says",
    [
        ("world", "needs a subset"),
        ("world:leters", "did you mean 'world:letters'"),
        ("world-letters:colors", "write 'world:colors'"),
        ("world-letters:split=dev", "train, val, test"),
        ("world-letters:size=0", "size=1"),
        ("digits:split=train", "split=test"),
    ],
)
def test_a_mistake_is_answered_in_one_line(spec, says):
    with pytest.raises(UserError) as caught:
        datasets.build(spec)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_identity_names_the_stream():
    same, other = world(variant="shapes"), World("shapes", "val", 2000, 0, ("{}",))
    assert same.identity == world(variant="shapes", size=5).identity != other.identity


@pytest.mark.parametrize("name", ["digits", "world-source"])
def test_another_resolution_changes_the_pixels_an_attack_has(name):
    data = datasets.build(name).read(range(8)).images
    large = datasets.build(f"{name}:resolution=96").read(range(8)).images
    assert large.shape == (8, 3, 96, 96)
    assert torch.allclose(torch.nn.functional.avg_pool2d(large, 3), data, atol=1e-6)
    small = datasets.build(f"{name}:resolution=16")
    assert small.resolution == 16
    assert torch.allclose(small.read(range(8)).images, torch.nn.functional.avg_pool2d(data, 2), atol=1e-6)
    with pytest.raises(UserError, match=f"'{name}' has no resolution=24"):
        datasets.build(f"{name}:resolution=24")
