"""Pre-training on any data sets: augmentation, order, held-out parts, shares, captions, and the small recipes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from robustcal.models.tiny_tokenizer import tiny_tokenizer
from robustcal.registry import ROOT, datasets, models, register
from robustcal.train import recipe, sources
from robustcal.train import state as trainstate
from robustcal.train.augment import DRAWS, augment, resized_crop
from robustcal.train.cache import cached
from robustcal.train.contrastive import encode_text
from robustcal.train.pretrain import make_towers
from robustcal.train.train import scaled, train
from robustcal.types import Batch, UserError

torch.set_num_threads(1)
NAMES = {"pets": ("cat", "dog"), "farm": ("cow", "dog", "sheep")}
TINY = {
    "batch": 12, "held_out": 6, "calibrate": 6, "width": 8, "embed": 16, "text_width": 16, "text_layers": 1, "vocabulary": 20,
    "context": 32, "warmup": 1, "lr": 1e-3, "save_every": 3, "log_every": 1, "eval_every": 3, "device": "cpu", "accumulate": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Two image-folder data sets of 16-pixel pictures, 30 a class: a class is a colour."""
    specs, generator = {}, np.random.Generator(np.random.Philox(0))
    for number, (name, classes) in enumerate(NAMES.items()):
        root = tmp_path_factory.mktemp(name)
        for label, title in enumerate(classes):
            (root / title).mkdir()
            for index in range(30):
                pixels = generator.integers(0, 60, (16, 16, 3)) + np.eye(3, dtype=int)[(label + number) % 3] * 180
                Image.fromarray(pixels.astype(np.uint8)).save(root / title / f"{index:02d}.png")
        specs[name] = f"folder:{root}:resolution=32"
    return specs


def settings(folders, **more) -> recipe.Pretrain:
    given = {key: value for key, value in TINY.items() if key != "device"}
    return recipe.complete("mine", {"task": "pretrain", "sources": list(folders.values()), **given, **more})


def plain_augment(image, u, pad, flip):
    """The same by padding with numpy and slicing, one image at a time."""
    wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    top, left = (int(value * (2 * pad + 1)) for value in u[4:6])
    side = image.shape[-1]
    image = wide[:, top : top + side, left : left + side]
    return (image[:, :, ::-1] if flip and u[6] < 0.5 else image) / 255


def test_shift_and_flip_equal_a_plain_loop():
    generator = np.random.Generator(np.random.Philox(1))
    pixels, u = generator.integers(0, 256, (40, 3, 12, 12), dtype=np.uint8), generator.random((40, DRAWS))
    found = augment(torch.from_numpy(pixels), u, pad=3, flip=True).numpy()
    for image, draws, ours in zip(pixels, u, found, strict=True):
        assert np.allclose(ours, plain_augment(image, draws, 3, True), atol=1e-6)
    assert torch.equal(augment(torch.from_numpy(pixels), u), torch.from_numpy(pixels).float() / 255)


def test_a_resized_crop_is_the_box_enlarged():
    """On an image that is linear in its coordinates, bilinear interpolation is exact inside the border."""
    generator = np.random.Generator(np.random.Philox(2))
    u, side = generator.random((200, 4)), 32
    axis = (torch.arange(side) + 0.5) / side  # pixel centres, image side 1
    plane = torch.stack([axis.expand(side, side), axis[:, None].expand(side, side), torch.zeros(side, side)])
    found = resized_crop(plane.expand(200, -1, -1, -1), u, 0.25)
    x, y = found[:, 0, side // 2], found[:, 1, :, side // 2]
    width, height = ((v[:, 20] - v[:, 12]) / 8 * side for v in (x, y))
    area, aspect = 0.25 + 0.75 * u[:, 0], np.exp((2 * u[:, 1] - 1) * np.log(4 / 3))
    assert np.allclose(width, np.minimum(np.sqrt(area * aspect), 1), atol=1e-4)
    assert np.allclose(height, np.minimum(np.sqrt(area / aspect), 1), atol=1e-4)
    middle = (x[:, 15] + x[:, 16]) / 2
    assert np.allclose(middle, width / 2 + (1 - width.numpy()) * u[:, 2], atol=1e-4)


def test_augmentation_of_a_sample_does_not_depend_on_its_batch():
    generator = np.random.Generator(np.random.Philox(3))
    pixels, u = torch.from_numpy(generator.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)), generator.random((9, DRAWS))
    how = {"pad": 2, "flip": True, "crop_scale": 0.3}
    whole = augment(pixels, u, **how)
    rows = [7, 2]
    assert torch.equal(augment(pixels[rows], u[rows], **how), whole[rows])


def test_a_cached_set_reads_as_the_set_itself(folders):
    source = datasets.build(folders["pets"])
    copy = cached(source, 32)
    one, two = source.read([5, 0, 59]), copy.read([5, 0, 59])
    assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels) and one.ids == two.ids
    with pytest.raises(UserError, match="images of 32 pixels, but image_size is 64; give the source :resolution=64"):
        cached(source, 64)


def test_every_pass_visits_what_is_not_held_out_once(folders):
    made = sources.make_sources(settings(folders))
    for source in made:
        apart = [*source.held_out, *source.calibration]
        assert len(source.held_out) == len(source.calibration) == 6 and len(set(apart)) == 12
        passes = [source.rows(np.arange(start, start + source.size)) for start in (0, source.size)]
        for visited in passes:
            assert sorted([*visited, *apart]) == list(range(len(source.dataset.ids)))
        assert list(passes[0]) != list(passes[1])
        across = source.rows(np.arange(source.size - 3, source.size + 3))  # a batch over the end of a pass
        assert list(across) == [*passes[0][-3:], *passes[1][:3]]


def test_labels_and_captions_name_the_class_of_the_image(folders):
    made = sources.make_sources(settings(folders, templates=["a {}", "the {}"]))
    joint = made[0].prompts["classes"].classnames
    assert joint == ("cat", "dog", "cow", "sheep")  # the dog of both sets is one class
    u = np.random.Generator(np.random.Philox(4)).random((30, sources.NUMBERS))
    for source in made:
        batch, rows = source.read(np.arange(30), u, 0.5), source.rows(np.arange(30))
        names = [source.dataset.classnames[label] for label in source.dataset.labels[rows]]
        assert [joint[label] for label in batch.attributes["classes"]] == names
        assert [caption.split()[1] for caption in batch.captions] == names
        assert {caption.split()[0] for caption in batch.captions} == {"a", "the"}


def test_shares_of_a_batch(folders):
    made = sources.make_sources(settings(folders))
    assert [source.size for source in made] == [48, 78]
    assert sources.counts(made, settings(folders, batch=63)).tolist() == [24, 39]  # by size
    assert sources.counts(made, settings(folders, shares=[1, 3])).tolist() == [3, 9]
    with pytest.raises(UserError, match="no sample in a batch of 12; raise its share"):
        sources.counts(made, settings(folders, shares=[1, 1000]))
    mixed = sources.make_sources(replace(settings(folders), sources=(folders["pets"], "world-source:size=40")))
    with pytest.raises(UserError, match="endless source with others; give shares"):
        sources.counts(mixed, settings(folders))


@dataclass
class Told:
    """A data set with captions and no class: what a caption column looks like to the trainer."""

    name: str = "told"
    classnames: tuple[str, ...] = ("a", "b")
    templates: tuple[str, ...] = ("{}",)
    task: str = "multi"
    resolution: int = 32

    def __post_init__(self):
        self.ids = [f"told/{i}" for i in range(30)]
        self.labels = np.ones((30, 2), np.float32)
        self.captions = [[f"sample number {i}", f"picture {i}"] if i % 2 else f"only {i}" for i in range(30)]

    def read(self, indices):
        images = torch.stack([torch.full((3, 32, 32), i / 255) for i in indices])
        return Batch(tuple(self.ids[i] for i in indices), images, torch.from_numpy(self.labels[list(indices)]))


@pytest.fixture
def told():
    register.dataset(lambda: Told(), name="told")
    yield "told"
    datasets.plugins.pop("told")


def test_a_caption_column_is_what_its_image_is_told_by(told, folders):
    (source,) = sources.make_sources(replace(settings(folders), sources=(told,)))
    numbers = np.arange(60)
    u = np.random.Generator(np.random.Philox(5)).random((60, sources.NUMBERS))
    batch = source.read(numbers, u, 0.0)
    for image, caption in zip(batch.images, batch.captions, strict=True):
        row = round(image.max().item() * 255)
        own = Told().captions[row]
        assert caption == own if isinstance(own, str) else caption in own
    assert {"sample", "picture", "only"} == {caption.split()[0] for caption in batch.captions}
    assert batch.attributes == {} and len(source.held_out) == 0 and source.size == 30


def test_pretraining_on_two_sets_is_resumed_bit_for_bit_and_learns(folders, tmp_path):
    """Colours are learned in forty steps; a run stopped after five goes on to the same weights."""
    how = {**TINY, "dataset": list(folders.values()), "steps": 40, "eps": "0", "contrastive": 1.0, "lr": 5e-3}

    def interrupt(event):
        if event["kind"] == "step" and event["step"] == 5:
            raise KeyboardInterrupt

    whole = train("small/clip", out=tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        train("small/clip", out=tmp_path / "stopped", progress=interrupt, **how)
    resumed = train("small/clip", out=tmp_path / "stopped", **how)
    assert (whole / "open_clip_model.safetensors").read_bytes() == (resumed / "open_clip_model.safetensors").read_bytes()
    with (whole / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    card = json.loads((whole / "card.json").read_text())
    measured = {key for key in card["held_out"] if key.endswith("clean_accuracy")}
    assert len(measured) == 2 and card["method"] == "clip"  # one for each source
    assert models.build(f"clip:local-dir:{whole}").tokenizer.vocab_size == 512 + 2 + 20


def test_captions_of_several_kinds_train_together(told, folders, tmp_path):
    how = {**TINY, "dataset": [folders["pets"], told, "world-source:split=train:size=40"], "shares": [1, 1, 1], "steps": 2}
    run = train("tiny/clip", out=tmp_path, **how)
    held_out = json.loads((run / "card.json").read_text())["held_out"]
    assert any(key.startswith("world-source_") for key in held_out) and not any(key.startswith("told") for key in held_out)


@pytest.mark.parametrize("odd", [
    {"width": 7}, {"width": 1}, {"text_width": 33}, {"image_size": 16}, {"context": 1},
])  # fmt: skip
def test_a_shape_that_cannot_be_built_is_refused_in_one_line(odd, folders, tmp_path):
    given = {**TINY, **odd, "dataset": f"world-source:size=40:resolution={odd.get('image_size', 32)}", "steps": 1}
    with pytest.raises(UserError, match="cannot be built|context") as error:
        train("tiny/clip", out=tmp_path, **given)
    assert "\n" not in str(error.value) and not trainstate.checkpoints(tmp_path)


def test_text_without_padding_columns_is_open_clips_own_encoding():
    small = recipe.complete("mine", {"task": "pretrain", "sources": ["world-source"], "context": 20, "text_width": 32})
    tokenizer = tiny_tokenizer(context_length=20)
    clip, _ = make_towers(small, tokenizer.vocab_size)
    tokens = tokenizer(["a red circle", "a photo of the number seven", ""])
    assert torch.allclose(encode_text(clip, tokens), clip.encode_text(tokens), atol=1e-6)


SMALL = [path.stem for path in (ROOT / "recipes" / "small").glob("*.toml") if path.stem not in ("clip", "zoo")]


def test_the_small_recipes_share_data_and_budget():
    found = [recipe.load(f"small/{name}") for name in SMALL]
    assert {"tecoa", "pmg-aft", "fare", "tga-zsr", "ucat", "ucat-scaled"} <= set(SMALL)
    own = {"name", "title", "objective", "lr"}
    assert {one.lr for one in found} <= {2e-4, 4e-4, 8e-4}  # the rates that were tried for every method
    assert len({str({k: v for k, v in one.dictionary().items() if k not in own}) for one in found}) == 1
    assert all("split=train" in one.dataset and "tiny-imagenet" in one.dataset for one in found)


@pytest.fixture(scope="module")
def small_base(folders, tmp_path_factory):
    """A few steps of small/clip on the miniature, at the tower's real size."""
    how = {"dataset": list(folders.values()), "steps": 3, "batch": 12, "held_out": 6, "calibrate": 6, "device": "cpu"}
    return train("small/clip", out=tmp_path_factory.mktemp("small"), **how)


def test_the_small_base_is_small_enough_to_bundle(small_base):
    assert (small_base / "open_clip_model.safetensors").stat().st_size <= 3_000_000


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_run(name, small_base, folders, tmp_path):
    how = {"dataset": folders["farm"], "steps": 2, "batch": 8, "held_out": 6, "eval_steps": 1, "device": "cpu"}
    run = train(f"small/{name}", model=f"clip:{small_base}", out=tmp_path, **how)
    card = json.loads((run / "card.json").read_text())
    assert card["steps"] == 2 and 0 <= card["held_out"]["robust_accuracy"] <= 1


def test_the_trainer_knows_no_rendered_world():
    """It is a source like any other, found through the registry."""
    for path in (ROOT / "train").glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.lstrip().startswith(("import ", "from "))]
        assert not [line for line in imports if "world" in line], path


DENORMALS = """
import sys, torch
torch.set_num_threads(2)
import robustcal.train.train as trainer
def spy(*_):
    tiny = torch.full((4_000_000,), 1e-30) * torch.full((4_000_000,), 1e-10)  # 1e-40, below the smallest normal float
    print("kept", (tiny.view(torch.int32) != 0).sum().item())
trainer._run = spy
trainer.train("tiny/clip", steps=1, out=sys.argv[1], device="cpu")
"""


def test_denormals_are_flushed_in_every_thread_of_a_training_run(tmp_path):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    torch.set_flush_denormal(False)
    done = subprocess.run([sys.executable, "-c", DENORMALS, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kept", "0"]


def test_scaled_tau_keeps_the_published_product():
    assert scaled("ucat:tau=scaled:evidence=matched", 50.0) == "ucat:tau=0.14:evidence=matched"
    assert scaled("ucat:tau=0.07", 50.0) == "ucat:tau=0.07"


def test_bundled_photograph_weights_say_whose_terms_they_come_under():
    assert "ImageNet" in recipe.load("small/zoo").licence
    cards = sorted((ROOT / "models" / "cards").glob("small-*.toml"))
    assert len(cards) == 7 and all("ImageNet" in tomllib.loads(card.read_text())["licence"] for card in cards)
