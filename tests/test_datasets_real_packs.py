"""Real photographs: the packs that may stand beside the repository."""

import numpy as np
import pytest
import torch

from robustcal.registry import datasets

torch.set_num_threads(1)
PACKS = {
    "cifar10": (10, 2000), "tiny_imagenet": (200, 2000), "eurosat": (10, 2000), "food101_64px": (101, 1919),
    "imagenette": (10, 900), "caltech97": (97, 776),
}  # fmt: skip


@pytest.fixture
def packs(shared):
    """The folder of the packs."""
    if not (shared / "data" / "wds").is_dir():
        pytest.skip("no image packs beside the repository")
    return shared / "data" / "wds"


@pytest.mark.parametrize("name", PACKS)
def test_real_packs(packs, name):
    classes, size = PACKS[name]
    data = datasets.build(f"webdataset:{packs / name}")
    assert (len(data.classnames), len(data.labels), len(set(data.ids))) == (classes, size, size)
    counts = np.bincount(data.labels, minlength=classes)
    assert counts.min() == counts.max() == size // classes
    images = data.read(range(0, size, size // 12)).images
    assert images.min() >= 0 and images.max() <= 1 and 0.2 < images.mean() < 0.8
    assert images.std(dim=(1, 2, 3)).min() > 0.01


def test_every_image_of_a_pack_of_mixed_sizes_and_greys_decodes(packs):
    data = datasets.build(f"webdataset:{packs / 'caltech97'}:resolution=32")
    greys = 0
    for start in range(0, len(data), 97):
        images = data.read(range(start, min(start + 97, len(data)))).images
        assert torch.isfinite(images).all() and images.shape[1:] == (3, 32, 32)
        greys += int((images == images[:, :1]).flatten(1).all(dim=1).sum())
    assert greys > 0, "this pack holds greyscale photographs"


def test_gzipped_training_shards_read_at_any_index(packs):
    data = datasets.build(f"webdataset:{packs / 'tiny_imagenet'}:split=train:resolution=native")
    assert len(data) == 5000 and data.resolution == 64
    forward, backward = data.read([10, 4999, 2500]), data.read([2500, 4999, 10])
    assert torch.equal(forward.images, backward.images.flip(0)) and forward.ids == backward.ids[::-1]
