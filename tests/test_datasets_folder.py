"""Class folders, and the way from stored pictures of any kind to pixels in [0, 1]."""

import warnings

import numpy as np
import pytest
import torch
from dataset_files import FLAT as COLOURS
from dataset_files import encode
from PIL import Image

from robustcal.registry import datasets
from robustcal.types import Dataset, UserError

torch.set_num_threads(1)


@pytest.fixture
def tree(tmp_path):
    """Class folders with one nested image and one file that is no image."""
    root = tmp_path / "pictures"
    for label, name in enumerate(("ant", "bee", "Cat")):
        (root / name / "deeper").mkdir(parents=True)
        (root / name / "b.png").write_bytes(encode(COLOURS[label]))
        (root / name / "deeper" / "a.JPG").write_bytes(encode(COLOURS[label], form="JPEG"))
        (root / name / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


def test_a_folder_of_class_folders(tree):
    data = datasets.build(f"folder:{tree}")
    assert isinstance(data, Dataset)
    assert tuple(data.classnames) == ("Cat", "ant", "bee") and data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert tuple(data.templates) == ("This is a photo of a {}",)
    assert data.ids[:2] == ["pictures/Cat/b.png", "pictures/Cat/deeper/a.JPG"]
    batch = data.read([5, 0])
    assert torch.allclose(batch.images[0, :, 100, 100], torch.tensor(COLOURS[1]) / 255, atol=0.02)
    assert torch.equal(batch.images[1, :, 100, 100], torch.tensor(COLOURS[2]) / 255)


def test_a_folder_may_bring_names_and_prompts(tree):
    (tree / "classnames.txt").write_text("a cat\nan ant\na bee\n")
    (tree / "zeroshot_classification_templates.txt").write_text("look, {}\n")
    data = datasets.build(f"folder:{tree}")
    assert tuple(data.classnames) == ("a cat", "an ant", "a bee") and tuple(data.templates) == ("look, {}",)
    (tree / "classnames.txt").write_text("a cat\n")
    with pytest.raises(UserError, match="has 1 lines for 3 class folders"):
        datasets.build(f"folder:{tree}")


def test_folders_that_cannot_be_read(tree, tmp_path):
    (tree / "Cat" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"image '.*Cat/b.png' of dataset 'pictures' cannot be read"):
        datasets.build(f"folder:{tree}:resolution=native")
    (tree / "ant" / "b.png").write_bytes(b"not a picture")
    data = datasets.build(f"folder:{tree}")
    with pytest.raises(UserError, match=r"image '.*ant/b.png' of dataset 'pictures' cannot be read"):
        data.read([2])
    (tree / "ant" / "b.png").unlink()
    with pytest.raises(UserError, match="ant/b.png' of dataset 'pictures' cannot be read: No such file"):
        data.read([2])
    assert data.identity, "the engine may leave an image out; the others still have an identity"
    (tree / "eel").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="'.*eel' is a link to nothing"):
        datasets.build(f"folder:{tree}")
    (tree / "eel").unlink()
    (tree / "dog").mkdir()
    with pytest.raises(UserError, match="class folder '.*dog' has no images"):
        datasets.build(f"folder:{tree}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        datasets.build(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(UserError, match="does not exist"):
        datasets.build(f"folder:{tmp_path / 'nowhere'}")


def test_splits_of_a_folder(tree, tmp_path):
    top = tmp_path / "split"
    (top / "train").mkdir(parents=True)
    tree.rename(top / "test")
    with pytest.raises(UserError, match="look like splits"):
        datasets.build(f"folder:{top}")
    assert datasets.build(f"folder:{top}:split=test").ids[0] == "split/test/Cat/b.png"


# -- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode, form",
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("P", "GIF")],
)
def test_every_colour_mode_becomes_rgb(tree, mode, form):
    grey = (102, 102, 102) if mode != "1" else (255, 255, 255)  # both stand in Pillow's standard palette
    suffix = {"JPEG": "jpg", "PNG": "png", "GIF": "gif"}[form]
    for path in (tree / "ant").rglob("*.*"):
        path.unlink()
    (tree / "ant" / f"x.{suffix}").write_bytes(encode(grey, form=form, mode=mode))
    data = datasets.build(f"folder:{tree}:resolution=32:preprocess=stretch")
    image = data.read([2]).images[0]
    assert image.shape == (3, 32, 32) and torch.allclose(image, torch.full_like(image, grey[0] / 255), atol=0.02)


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tree):
    Image.fromarray(np.full((32, 32), 257 * 100, dtype=np.uint16)).save(tree / "ant" / "a16.png")
    image = datasets.build(f"folder:{tree}").read([2]).images[0]
    assert torch.equal(image, torch.full_like(image, 100 / 255))


def test_a_palette_with_transparency_keeps_its_colours(tree):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tree / "ant" / "a.png", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = datasets.build(f"folder:{tree}").read([2]).images[0]
    assert torch.equal(got[:, 9, 9], torch.tensor([10, 200, 30]) / 255)


def test_recipes_agree_with_torchvision_transforms(tree):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tree / "ant" / "a.png")
    picture = Image.fromarray(pixels)
    expected = {
        "crop": Compose([Resize(256), CenterCrop(224), ToTensor()]),
        "stretch": Compose([Resize((224, 224)), ToTensor()]),
        "clip": Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor()]),
    }
    for recipe, transform in expected.items():
        got = datasets.build(f"folder:{tree}:preprocess={recipe}").read([2]).images[0]
        assert torch.equal(got, transform(picture)), recipe
