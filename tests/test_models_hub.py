"""Released robust weights in the layouts of their releases, miniature: the hub's cache, bare towers, word pieces."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_models_transformers import TEXT, VISION, as_transformers
from tiny_clip import config, write_model

from robustcal.models import blueprint, huggingface
from robustcal.models import folder as folders
from robustcal.models.source import spec_identity
from robustcal.models.word_pieces import WordPieces, read_word_pieces, words
from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)
CLASSES, TEMPLATES = ["cat", "red dog"], ["a photo of a {}"]
PIECES = ["[PAD]", "[bos]", "[eos]", "[UNK]", "[CLS]", "a", "photo", "of", "red", "cat", "dog", "##s", "##gy", ".", ","]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """repository -> its folder in an empty cache of the hub, as if fetched."""
    from huggingface_hub import constants

    from robustcal.models import hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "reachable", lambda: False)

    def folder(repository: str) -> Path:
        here = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (here / "refs").mkdir(parents=True)
        (here / "refs" / "main").write_text("0" * 40)
        (here / "snapshots" / ("0" * 40)).mkdir(parents=True)
        return here / "snapshots" / ("0" * 40)

    return folder


def logits(spec):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return models.build(spec).classifier(CLASSES, TEMPLATES)(images)


def write_transformers(folder, act):
    """A CLIPModel of transformers as `save_pretrained` leaves it: two files, no tokenizer, no statistics."""
    parts = {"text_config": TEXT | {"hidden_act": act}, "vision_config": VISION | {"hidden_act": act}}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 32, **parts}))
    settings, _ = huggingface.model_config(folder)
    torch.manual_seed(0)
    clip = blueprint.make_module(settings, "test")
    save_file(as_transformers(clip.state_dict()), folder / "model.safetensors")
    return clip, settings


@pytest.mark.parametrize("name, act", [("leaf-fare2-vit-l-14", "quick_gelu"), ("fare2-vit-h-14", "gelu"), ("fare2-vit-l-14-leaf", "quick_gelu")])
def test_a_release_in_transformers_layout_is_read_from_the_hubs_cache(cache, tmp_path, name, act):
    clip, settings = write_transformers(cache(models.cards()[name]["variant"].removeprefix("hf-hub:")), act)
    folders.save_local_dir(clip, settings, tmp_path / "same")
    torch.testing.assert_close(logits(name), logits(f"clip:local-dir:{tmp_path}/same"))
    found = models.build(name)
    assert (found.mean, found.std) == (blueprint.OPENAI_MEAN, blueprint.OPENAI_STD) and spec_identity(name)


def test_the_activation_on_a_card_is_held_against_the_release(cache):
    write_transformers(cache("LEAF-CLIP/OpenCLIP-ViT-H-FARE2"), "quick_gelu")
    with pytest.raises(UserError, match="declares quickgelu weights, but activation=gelu"):
        models.build("fare2-vit-h-14")


def test_of_two_configs_in_a_repository_that_of_open_clip_counts(cache):
    here = cache("org/both")
    write_transformers(here, "gelu")
    settings = config("vit") | {"embed_dim": 16}
    settings["text_cfg"] |= {"vocab_size": 49408}
    folders.save_local_dir(blueprint.make_module(settings, "test"), settings, here)
    assert models.build("clip:hf-hub:org/both").clip.visual.output_dim == 16


def test_a_repository_without_a_config_is_one_line(cache):
    cache("org/none")
    with pytest.raises(UserError, match="'hf-hub:org/none' is not in the hub's cache.*local-dir:PATH"):
        models.build("clip:hf-hub:org/none")


@pytest.mark.parametrize("name, tower, wrap", [
    ("sim-clip4-vit-l-14", "vit", lambda state: state),
    ("tecoa4-vit-b-32-apt", "vit", lambda state: {"vision_encoder_state_dict": state, "epoch": 10}),
    ("tecoa1-rn50-apt", "resnet", lambda state: {"vision_encoder_state_dict": state, "state_dict": {}, "epoch": 10}),
])  # fmt: skip
def test_a_released_tower_goes_on_the_base_of_its_card(tmp_path, monkeypatch, name, tower, wrap):
    base = write_model(tmp_path / "base", tower=tower, quick_gelu=True)
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    monkeypatch.setitem(models.cards()[name], "base", f"open-clip:local-dir:{base}")
    whole = models.build(f"clip:{base}").clip
    for parameter in whole.visual.parameters():
        parameter.data *= 0.9
    (tmp_path / "models").mkdir()
    torch.save(wrap(whole.visual.state_dict()), tmp_path / "models" / models.cards()[name]["weights"])
    settings = config(tower, quick_gelu=True)
    folders.save_local_dir(whole, settings, tmp_path / "whole", vocabulary=base / "bpe.txt.gz")
    assert torch.equal(logits(name), logits(f"clip:{tmp_path}/whole"))


# -- word pieces -------------------------------------------------------------------------------------------------------
def write_delta(folder, **text):
    """A miniature of Delta-CLIP: its text is read in word pieces, pooled at the last place."""
    settings = config("vit")
    settings["text_cfg"] |= {"pool_type": "last", "no_causal_mask": True}
    torch.manual_seed(0)
    folders.save_local_dir(blueprint.make_module(settings, "test"), settings, folder)
    written = json.loads((folder / "open_clip_config.json").read_text())
    written["model_cfg"]["text_cfg"] |= {"vocab_path": "./there/pieces.txt", **text}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    return settings


def test_a_release_that_reads_word_pieces_needs_their_list_and_then_loads(cache, tmp_path):
    name = "delta-clip-vit-l-14"
    here = cache("zw123/delta_clip_l14_224")
    write_delta(here)
    with pytest.raises(UserError, match="'hf-hub:zw123/delta_clip_l14_224' reads its texts with the vocabulary pieces.txt, which is not"):
        models.build(name)
    (here / "pieces.txt").write_text("\n".join(PIECES) + "\n")
    model = models.build(name)
    ids = torch.tensor([[1, 5, 6, 7, 5, 9, 2, *[0] * 8, 4], [1, 5, 6, 7, 5, 8, 10, 2, *[0] * 7, 4]])
    assert torch.equal(model.tokenizer(["a photo of a cat", "A Photo of a réd DOG"]), ids)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(model.clip.encode_text(ids), dim=-1)
    torch.testing.assert_close(model.classifier(CLASSES, TEMPLATES).head.cpu().reshape(unit.shape), unit)


def test_a_list_of_word_pieces_is_a_part_of_the_model(tmp_path):
    write_delta(tmp_path / "m")
    found = set()
    for pieces in (PIECES, [*PIECES, "more"]):
        (tmp_path / "m" / "pieces.txt").write_text("\n".join(pieces))
        found.add(spec_identity(f"clip:{tmp_path}/m"))
    assert len(found) == 2
    (tmp_path / "m" / "pieces.txt").write_text("\n".join(PIECES[5:]))
    with pytest.raises(UserError, match=r"pieces.txt' has no \[bos\], \[eos\], \[CLS\], \[UNK\]"):
        models.build(f"clip:{tmp_path}/m")


def test_a_config_that_open_clip_does_not_know_is_refused_in_one_line(cache):
    here = cache("zw123/delta_clip_h14_336")
    write_delta(here, reader="their own")
    (here / "pieces.txt").write_text("\n".join(PIECES))
    with pytest.raises(UserError, match="text_cfg with reader, which open_clip does not know") as error:
        models.build("delta-clip-vit-h-14")
    assert "\n" not in str(error.value)


def test_words_and_their_pieces(tmp_path):
    (tmp_path / "v").write_text("\n".join(PIECES))
    read = read_word_pieces(tmp_path / "v", 12)
    assert list(words("Cats, DOGGY.\tan é-e 猫x")) == ["cats", ",", "doggy", ".", "an", "e", "-", "e", "猫", "x"]
    assert read.pieces("cats") == ["cat", "##s"] and read.pieces("doggys") == ["dog", "##gy", "##s"]
    assert read.pieces("catx") == ["[UNK]"] == read.pieces("s") and read.pieces("a" * 101) == ["[UNK]"]
    assert read(["cats, doggy."]).tolist() == [[1, 9, 11, 14, 10, 12, 13, 2, 0, 0, 0, 4]]
    assert read([""]).tolist() == [[1, 2, *[0] * 9, 4]]


@pytest.mark.parametrize("count, fits", [(9, True), (10, False)])
def test_a_text_that_does_not_fit_is_refused_instead_of_cut(count, fits):
    read = WordPieces({piece: place for place, piece in enumerate(PIECES)}, 12)
    if fits:
        assert read(["a " * count]).tolist() == [[1, *[5] * count, 2, 4]]
    else:
        with pytest.raises(UserError, match="has 13 tokens, but the model reads 12"):
            read(["a " * count])
