"""Models: every way in, the same strict code; logits agree with open_clip's own loading."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_clip import config, write_model

from robustcal.clip import weights
from robustcal.models import blueprint, tokens
from robustcal.models import folder as folders
from robustcal.models.source import spec_identity
from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)
CLASSES, TEMPLATES = ("red circle", "blue square", "cat"), ("a photo of a {}", "this is the {}")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "base", dtype=torch.float16)


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(spec, images):
    with torch.no_grad():
        return models.build(spec).classifier(CLASSES, TEMPLATES)(images)


def fine_tuned(base, factor=0.9):
    """The image tower of a folder, with every weight scaled: a stand-in for a fine-tune."""
    state = models.build(f"open-clip:local-dir:{base}").clip.visual.state_dict()
    return {k: v * factor if v.is_floating_point() and "running" not in k else v for k, v in state.items()}


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_local_dir_gives_the_logits_of_open_clip_itself(tmp_path, images, tower):
    import open_clip

    folder = write_model(tmp_path / tower, tower=tower)
    own = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.SimpleTokenizer(str(folder / "bpe.txt.gz"), context_length=16)
    mean, std = (torch.tensor(s).view(1, 3, 1, 1) for s in (blueprint.OPENAI_MEAN, blueprint.OPENAI_STD))
    with torch.no_grad():
        pixels = own.encode_image((images - mean) / std, normalize=True)
        heads = [own.encode_text(tokenizer([t.format(c) for c in CLASSES]), normalize=True) for t in TEMPLATES]
        head = torch.nn.functional.normalize(sum(heads), dim=-1)
        expected = own.logit_scale.exp() * pixels @ head.T
    torch.testing.assert_close(logits(f"open-clip:local-dir:{folder}", images), expected, rtol=1e-5, atol=1e-5)


def test_what_the_model_says_about_itself_is_used(tmp_path):
    folder = write_model(tmp_path / "m")
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["preprocess_cfg"] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    model = models.build(f"open-clip:local-dir:{folder}")
    assert (model.size, model.mean, model.std) == (32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert model.tokenizer(["a red circle"]).shape == (1, 16)
    assert model.clip.logit_scale.exp() == pytest.approx(1 / 0.07, rel=1e-4)
    assert model.scores == "softmax" and not any(p.requires_grad for p in model.clip.parameters())


def test_sigmoid_models_load_and_say_so(tmp_path, images):
    folder = write_model(tmp_path / "siglip", tower="vit", sigmoid=True)
    model = models.build(f"open-clip:local-dir:{folder}")
    classifier = model.classifier(CLASSES, TEMPLATES)
    assert model.scores == "sigmoid" and classifier.scores == "sigmoid"
    with torch.no_grad():
        expected = classifier.cosines(images) * model.clip.logit_scale.exp() - 10.0
        torch.testing.assert_close(classifier(images), expected)


def test_half_precision_storage_is_computed_in_float32(base):
    stored = load_file(base / "open_clip_model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}
    assert {p.dtype for p in models.build(f"open-clip:local-dir:{base}").clip.parameters()} == {torch.float32}


def test_every_card_takes_every_variant(base, tmp_path, images):
    tower = fine_tuned(base)
    weights.save_state_dict(tower, tmp_path / "tower.safetensors")
    plain = logits(f"open-clip:local-dir:{base}", images)
    assert torch.equal(logits(f"clip:local-dir:{base}", images), plain)
    assert torch.equal(logits(f"clip:{base}", images), plain)  # a bare folder is a local-dir
    tuned = logits(f"checkpoint:{tmp_path}/tower.safetensors:base=local-dir:{base}", images)
    assert torch.equal(logits(f"clip:{tmp_path}/tower.safetensors:base=open-clip:local-dir:{base}", images), tuned)
    assert not torch.allclose(tuned, plain)


def test_run_folder_knows_its_base_and_its_sha256(base, tmp_path, images):
    run = tmp_path / "run"
    digest = weights.save_state_dict(fine_tuned(base), run / "model.safetensors", torch.float16)
    with pytest.raises(UserError, match="card.json"):
        models.build(f"checkpoint:{run}")
    (run / "card.json").write_text(json.dumps({"base": f"open-clip:local-dir:{base}", "sha256": digest}))
    first = logits(f"clip:{run}", images)
    assert torch.isfinite(first).all() and not torch.allclose(first, logits(f"clip:{base}", images))
    (run / "card.json").write_text(json.dumps({"base": f"local-dir:{base}", "sha256": "0" * 64}))
    with pytest.raises(UserError, match="sha256"):
        models.build(f"checkpoint:{run}")
    (run / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no model.safetensors yet"):
        models.build(f"clip:{run}")


def released(tower, whole):
    """How the releases wrap an image tower or a whole model: name -> what torch.save was given."""
    visual = {f"visual.{k}": v for k, v in tower.items()}
    prompts = {"state_dict": {}, "add_prompter": {"prompts": torch.zeros(1, 0, 8)}, "best_acc1": 41.0, "epoch": 10}
    return {
        "tecoa-lineage": {"vision_encoder_state_dict": tower, **prompts},
        "data-parallel": {"vision_encoder_state_dict": {f"module.{k}": v for k, v in tower.items()}, **prompts},
        "robustvlm": tower,
        "openai-names": {"state_dict": {f"module.{k}": v for k, v in visual.items()}},
        "compiled": {"model": {f"_orig_mod.module.{k}": v for k, v in visual.items()}},
        "whole": {"state_dict": whole | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(600)}},
    }


@pytest.mark.parametrize("form", list(released({}, {})))
def test_released_checkpoint_formats_give_the_same_model(base, tmp_path, images, form):
    tower = fine_tuned(base)
    model = models.build(f"open-clip:local-dir:{base}")
    model.clip.visual.load_state_dict(tower)
    expected = model.classifier(CLASSES, TEMPLATES)(images)
    torch.save(released(tower, model.clip.state_dict())[form], tmp_path / "c.pth.tar")
    torch.testing.assert_close(logits(f"checkpoint:{tmp_path}/c.pth.tar:base=local-dir:{base}", images), expected)


def test_a_checkpoint_that_needs_more_than_its_tower_is_refused(base, tmp_path):
    payload = released(fine_tuned(base), {})["tecoa-lineage"]
    torch.save({**payload, "add_prompter": {"prompts": torch.zeros(1, 4, 8)}}, tmp_path / "p.pt")
    with pytest.raises(UserError, match="visual prompt"):
        models.build(f"checkpoint:{tmp_path}/p.pt:base=local-dir:{base}")
    torch.save({"state_dict": {"head.weight": torch.zeros(2, 2)}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="neither a CLIP model nor its image tower"):
        models.build(f"checkpoint:{tmp_path}/other.pt:base=local-dir:{base}")
    torch.save(fine_tuned(base), tmp_path / "bare.pt")
    with pytest.raises(UserError, match="base="):
        models.build(f"checkpoint:{tmp_path}/bare.pt")


def test_weights_of_another_architecture_are_refused(base, tmp_path):
    vit = write_model(tmp_path / "vit", tower="vit")
    weights.save_state_dict(fine_tuned(base), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match="another architecture.*missing.*unexpected"):
        models.build(f"checkpoint:{tmp_path}/resnet.safetensors:base=local-dir:{vit}")
    name = "open_clip_model.safetensors"
    (vit / name).write_bytes((base / name).read_bytes())
    with pytest.raises(UserError, match="another architecture"):
        models.build(f"open-clip:local-dir:{vit}")


def test_activation_mismatch_is_refused(tmp_path):
    quick = write_model(tmp_path / "quick", tower="vit", quick_gelu=True)
    plain = write_model(tmp_path / "plain", tower="vit")
    assert weights.activation(models.build(f"open-clip:local-dir:{quick}").clip) == "quickgelu"
    with pytest.raises(UserError, match="declares gelu.*activation=quickgelu"):
        models.build(f"open-clip:local-dir:{plain}:activation=quickgelu")
    settings = json.loads((plain / "open_clip_config.json").read_text())
    del settings["model_cfg"]["quick_gelu"]  # nothing is declared: open_clip's default, told, and the user's word counts
    silent = write_model(tmp_path / "silent", tower="vit")
    (silent / "open_clip_config.json").write_text(json.dumps(settings))
    assumed, said = (models.build(f"open-clip:local-dir:{silent}{end}") for end in ("", ":activation=quickgelu"))
    assert weights.activation(assumed.clip) == "gelu" and "does not say which activation" in assumed.notes[0]
    assert weights.activation(said.clip) == "quickgelu" and said.notes == () and said.fingerprint != assumed.fingerprint
    tower = models.build(f"open-clip:local-dir:{quick}").clip.visual.state_dict()
    weights.save_state_dict(tower, tmp_path / "tower.safetensors")
    spec = f"checkpoint:{tmp_path}/tower.safetensors:base=local-dir:"
    assert models.build(f"{spec}{quick}:activation=quickgelu").scores == "softmax"
    with pytest.raises(UserError, match="trained with quickgelu.*built with gelu"):
        models.build(f"{spec}{plain}:activation=quickgelu")
    (tmp_path / "run").mkdir()
    weights.save_state_dict(tower, tmp_path / "run" / "model.safetensors")
    card = {"base": f"local-dir:{plain}", "activation": "quickgelu"}
    (tmp_path / "run" / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="trained with quickgelu"):
        models.build(f"checkpoint:{tmp_path}/run")


@pytest.fixture
def openai_tag(tmp_path, monkeypatch):
    """A stand-in for downloaded OpenAI weights: a tiny architecture with a tag trained with QuickGELU."""
    import open_clip
    from open_clip import factory, pretrained

    from robustcal.models import hub
    from robustcal.models import open_clip as plugin

    folder = write_model(tmp_path / "openai", tower="vit", quick_gelu=True)
    published = {"hf_hub": "org/openai/", "mean": (0.5,) * 3, "std": (0.2,) * 3, "quick_gelu": True}
    other = {**published, "quick_gelu": False}
    names = ("Toy", "Toy-quickgelu")
    for name in names:
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config("vit", quick_gelu=name.endswith("quickgelu")))
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"openai": published, "other": other})
    monkeypatch.setattr(plugin, "architectures", lambda: list(names))
    monkeypatch.setattr(hub, "fetch", lambda repo, files, name: folder / "open_clip_model.safetensors")
    monkeypatch.setattr(tokens, "make_tokenizer", lambda *a: open_clip.SimpleTokenizer(str(folder / "bpe.txt.gz")))
    return folder


def test_a_tag_is_built_with_the_activation_it_was_trained_with(openai_tag):
    model = models.build("open-clip:Toy/openai")
    assert weights.activation(model.clip) == "quickgelu" and model.mean == (0.5,) * 3
    assert weights.activation(models.build("open-clip:Toy/other").clip) == "gelu"
    with pytest.raises(UserError, match="declares quickgelu"):
        models.build("open-clip:Toy/openai:activation=gelu")
    with pytest.raises(UserError, match="trained with GELU; refused, use 'Toy/other'"):
        models.build("open-clip:Toy-quickgelu/other")
    with pytest.raises(UserError, match="no weights 'opnai'; there are: openai"):
        models.build("open-clip:Toy/opnai")
    with pytest.raises(UserError, match="names an architecture but no weights"):
        models.build("open-clip:Toy")


def test_whole_checkpoint_on_a_bare_architecture_must_say_its_activation(openai_tag):
    file = openai_tag / "open_clip_model.safetensors"
    with pytest.raises(UserError, match="activation=quickgelu"):
        models.build(f"checkpoint:{file}:base=Toy")
    model = models.build(f"checkpoint:{file}:base=Toy:activation=quickgelu")
    assert weights.activation(model.clip) == "quickgelu"
    with pytest.raises(UserError, match="declares quickgelu"):
        models.build(f"checkpoint:{file}:base=Toy-quickgelu:activation=gelu")


def test_normalisation_can_be_the_one_of_the_release(base, tmp_path):
    weights.save_state_dict(fine_tuned(base), tmp_path / "t.safetensors")
    spec = f"checkpoint:{tmp_path}/t.safetensors:base=local-dir:{base}"
    assert models.build(f"{spec}:normalise=imagenet").mean == (0.485, 0.456, 0.406)
    assert models.build(f"{spec}:normalise=imagenet").fingerprint != models.build(spec).fingerprint
    with pytest.raises(UserError, match="normalise=zero.*openai, imagenet"):
        models.build(f"{spec}:normalise=zero")


def test_a_spec_inside_a_spec_is_one_line_that_says_what_to_do(base, tmp_path, monkeypatch):
    weights.save_state_dict(fine_tuned(base), tmp_path / "t.safetensors")
    spec = f"checkpoint:{tmp_path}/t.safetensors:base="
    for inner, told in (
        ("temperature:model=tiny-clip", "no parameter 'model'.*takes no parameters of its own: give it a card or a run folder"),
        (f"checkpoint:{tmp_path}/t.safetensors:base=tiny-clip", "gives 'base' twice"),
        (f"checkpoint:{tmp_path}/t.safetensors", "say what it was fine-tuned from with base=SPEC"),
        ("defended", "no plain CLIP model"),
    ):
        monkeypatch.setitem(models.cards(), "defended", {"path": "defended.toml", "source": "ttc", "params": {"model": "tiny-clip"}})
        with pytest.raises(UserError, match=told) as error:
            models.build(spec + inner)
        assert "\n" not in str(error.value)


BAD = {
    "open-clip": "needs to know which",
    "open-clip:ViT-B-33/openai": "did you mean ViT-B-32",
    "open-clip:hf-hub:nobody": "malformed",
    "open-clip:local-dir:/no/such/folder": "does not exist",
    "clip:/no/such/file.pt": "does not exist",
    "clip:runs/none/model.safetensors": "does not exist",
    "checkpoint": "needs a file or run folder",
    "checkpoint:/no/such/run": "does not exist",
    "clip:ViT-B-32/openai:base=tiny-clip": "base=tiny-clip has no use",
}


@pytest.mark.parametrize("spec", BAD)
def test_bad_specs_fail_in_one_line_before_anything_is_loaded(spec):
    for attempt in (models.build, spec_identity):
        with pytest.raises(UserError, match=BAD[spec]) as error:
            attempt(spec)
        assert "\n" not in str(error.value)


def test_bad_folders_are_named(base, tmp_path):
    def broken(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(text)
        (folder / "open_clip_model.safetensors").write_bytes((base / "open_clip_model.safetensors").read_bytes())
        return f"open-clip:local-dir:{folder}"

    settings = json.loads((base / "open_clip_config.json").read_text())
    wide = json.loads(json.dumps(settings))
    wide["model_cfg"]["embed_dim"] = 48
    odd = json.loads(json.dumps(settings))
    odd["model_cfg"]["vision_cfg"]["colour"] = 3
    cases = [("json", "{", "not readable JSON"), ("shape", "[]", "no open_clip config"),
             ("wide", json.dumps(wide), "another architecture"), ("odd", json.dumps(odd), "cannot be built"),
             ("words", json.dumps(settings), "vocabulary")]  # fmt: skip
    for name, text, message in cases:
        with pytest.raises(UserError, match=message):
            models.build(broken(name, text))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no open_clip_config.json"):
        models.build(f"open-clip:local-dir:{tmp_path}/empty")


def test_identity_follows_the_files_and_needs_no_torch(base, tmp_path):
    weights.save_state_dict(fine_tuned(base), tmp_path / "t.safetensors")
    spec = f"checkpoint:{tmp_path}/t.safetensors:base=local-dir:{base}"
    first = spec_identity(spec)
    assert first == spec_identity(spec) and first != spec_identity(spec + ":activation=gelu")
    weights.save_state_dict(fine_tuned(base, 0.8), tmp_path / "t.safetensors")
    assert spec_identity(spec) != first
    assert spec_identity("open-clip:ViT-B-32/openai") != spec_identity("open-clip:ViT-B-16/openai")
    code = (
        "import sys; from robustcal.models.source import spec_identity as i; "
        f"i({spec!r}); i('checkpoint:{tmp_path}/t.safetensors:base=ViT-B-32'); "
        "print('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_fingerprints_tell_models_apart(base, tmp_path):
    weights.save_state_dict(fine_tuned(base), tmp_path / "t.safetensors")
    spec = f"open-clip:local-dir:{base}"
    prints = {models.build(s).fingerprint for s in (spec, f"checkpoint:{tmp_path}/t.safetensors:base={spec}")}
    assert len(prints) == 2 and models.build(spec).fingerprint in prints


def test_export_round_trip_keeps_every_weight(base, tmp_path):
    model = models.build(f"open-clip:local-dir:{base}")
    settings = json.loads((base / "open_clip_config.json").read_text())["model_cfg"]
    vocabulary = base / "bpe.txt.gz"
    digest = folders.save_local_dir(model.clip, settings, tmp_path / "copy", vocabulary=vocabulary)
    again = models.build(f"open-clip:local-dir:{tmp_path}/copy")
    assert digest == weights.sha256(tmp_path / "copy" / "open_clip_model.safetensors")
    assert all(torch.equal(v, again.clip.state_dict()[k]) for k, v in model.clip.state_dict().items())


def test_offline_hub_is_one_quick_line(monkeypatch):
    from robustcal.models import hub

    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(UserError, match="hf-hub:nobody/nothing.*no network.*local-dir:PATH"):
        models.build("open-clip:hf-hub:nobody/nothing")


PUBLISHED = {name: card for name, card in models.cards().items() if card["source"] in ("open-clip", "checkpoint")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cards_of_published_models_are_complete(name):
    card = PUBLISHED[name]
    assert card["title"] and card["method"] in name and card["homepage"].startswith("https://")
    assert card.get("activation", "gelu") in ("gelu", "quickgelu") and card.get("trained_at", "1/255").endswith("/255")
    if claims := card.get("claims"):
        accuracies = [v for k, v in claims.items() if k == "clean" or k.endswith("/255")]
        assert claims["source"] and len(accuracies) >= 3 and accuracies == sorted(accuracies, reverse=True)
        assert all(0 < value < 1 for value in accuracies)
    if card["source"] == "open-clip":
        assert card["variant"].startswith("hf-hub:")
    else:
        assert card["base"] and card["activation"] and card.get("url", card["weights"]).endswith(card["weights"])


def test_a_card_whose_weights_are_not_here_says_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"fetch https://.*vitb32_fare_eps_1.pt and put it at {tmp_path}/models"):
        spec_identity("fare1-vit-b-32")
    with pytest.raises(UserError, match="get vitb32_eps4.pth.tar from https://github.com/TreeLLi/APT and put it at"):
        spec_identity("tecoa4-vit-b-32-apt")


def test_a_card_of_your_own_finds_the_weights_beside_it(base, tmp_path, images):
    weights.save_state_dict(fine_tuned(base), tmp_path / "mine.safetensors")
    (tmp_path / "my-robust.toml").write_text(
        f'title = "mine"\nsource = "checkpoint"\nweights = "mine.safetensors"\nbase = "open-clip:local-dir:{base}"\n'
        f'sha256 = "{weights.sha256(tmp_path / "mine.safetensors")}"\n'
    )
    models.add_card(tmp_path / "my-robust.toml")
    try:
        expected = logits(f"checkpoint:{tmp_path}/mine.safetensors:base=local-dir:{base}", images)
        assert torch.equal(logits("my-robust", images), expected)
        assert torch.equal(logits(f"my-robust:local-dir:{base}", images), logits(f"clip:{base}", images))
        weights.save_state_dict(fine_tuned(base, 0.7), tmp_path / "mine.safetensors")
        with pytest.raises(UserError, match="sha256"):
            spec_identity("my-robust")
    finally:
        del models.cards()["my-robust"]


def test_the_example_of_the_docs_works(base, tmp_path, images):
    from robustcal.registry import load_plugin_file

    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "@register.model" in block)
    (tmp_path / "ensemble.py").write_text(code)
    load_plugin_file(tmp_path / "ensemble.py")
    run = tmp_path / "run"
    digest = weights.save_state_dict(fine_tuned(base), run / "model.safetensors")
    (run / "card.json").write_text(json.dumps({"base": f"local-dir:{base}", "sha256": digest}))
    a, b = f"clip:{base}", f"clip:{run}"
    try:
        both = logits(f"ensemble:a={a}:b={b}", images)
        torch.testing.assert_close(both, (logits(a, images) + logits(b, images)) / 2)
        assert spec_identity(f"ensemble:a={a}:b={b}") != spec_identity(f"ensemble:a={a}:b={a}")
        assert next(e for e in models.entries() if e.name == "ensemble").origin.endswith("ensemble.py")
    finally:
        del models.plugins["ensemble"]


def test_borrowed_towers_load_through_the_same_code(tmp_path, images):
    """A timm image tower in a CustomTextCLIP, as the SigLIP and convolutional models of open_clip are built."""
    settings = config("vit", sigmoid=True)
    settings["vision_cfg"] = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg"}
    settings["vision_cfg"]["timm_proj"] = "linear"
    torch.manual_seed(0)
    clip = blueprint.make_module(settings, "timm")
    folder = write_model(tmp_path / "timm")
    folders.save_local_dir(clip, settings, folder, vocabulary=folder / "bpe.txt.gz")
    model = models.build(f"open-clip:local-dir:{folder}")
    assert (model.size, model.scores, weights.activation(model.clip)) == (160, "sigmoid", "gelu")
    assert model.classifier(CLASSES)(images).shape == (3, 3)


def test_a_config_that_asks_for_absurd_sizes_is_refused_before_memory_is_taken(base, tmp_path):
    settings = json.loads((base / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"] |= {"vocab_size": 10**9, "width": 4096}
    for name in ("open_clip_model.safetensors", "bpe.txt.gz"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="another architecture"):
        models.build(f"open-clip:local-dir:{tmp_path}")


def test_a_missing_tokenizer_is_one_line(base, tmp_path):
    settings = json.loads((base / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "org/none"
    (tmp_path / "open_clip_model.safetensors").write_bytes((base / "open_clip_model.safetensors").read_bytes())
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="tokenizer of 'local-dir:.*(needs transformers: pip|cannot be made)"):
        models.build(f"open-clip:local-dir:{tmp_path}")


def test_a_released_checkpoint_becomes_a_run_folder(base, tmp_path, images):
    from robustcal.models.export import export_run

    torch.save(released(fine_tuned(base), {})["data-parallel"], tmp_path / "release.pth.tar")
    run = export_run(tmp_path / "release.pth.tar", tmp_path / "run", base=f"local-dir:{base}")
    direct = logits(f"checkpoint:{tmp_path}/release.pth.tar:base=local-dir:{base}", images)
    assert torch.equal(logits(f"ucat:{run}", images), direct)
    card = json.loads((run / "card.json").read_text())
    assert card["converted_from"]["sha256"] == weights.sha256(tmp_path / "release.pth.tar")
    assert card["activation"] == "gelu" and card["sha256"] == weights.sha256(run / "model.safetensors")
    torch.save(models.build(f"clip:{base}").clip.state_dict(), tmp_path / "whole.pt")
    with pytest.raises(UserError, match="whole model"):
        export_run(tmp_path / "whole.pt", tmp_path / "no", base=f"local-dir:{base}")
