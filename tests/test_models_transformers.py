"""CLIPModel of transformers: the same logits as transformers gives; SigLIP and others are refused with a way on."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import config

from robustcal.models import blueprint, huggingface
from robustcal.models.source import spec_identity
from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)
CLASSES, TEMPLATES = ["cat", "red dog"], ["a photo of a {}"]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": 49407}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("eos", [2, 49407])
def test_logits_are_those_of_transformers(tmp_path, act, eos):
    transformers = pytest.importorskip("transformers")
    import open_clip

    torch.manual_seed(0)
    text, vision = TEXT | {"hidden_act": act, "layer_norm_eps": 1e-4, "eos_token_id": eos}, VISION | {"hidden_act": act}
    own = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    for parameter in own.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    own.save_pretrained(tmp_path)
    classifier = models.build(f"clip:{tmp_path}").classifier(CLASSES, TEMPLATES)
    images, ids = torch.rand(3, 3, 32, 32), open_clip.SimpleTokenizer()([TEMPLATES[0].format(name) for name in CLASSES])
    with torch.no_grad():
        expected = own(input_ids=ids, pixel_values=classifier.preprocess(images)).logits_per_image
        torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-4)
        file = models.build(f"checkpoint:{tmp_path}/model.safetensors:base=local-dir:{tmp_path}")
        assert torch.equal(file.classifier(CLASSES, TEMPLATES)(images), classifier(images))


def as_transformers(state):
    """The other direction, written for itself: open_clip's tensors under the names of transformers."""
    found = {"logit_scale": state["logit_scale"], "text_model.embeddings.position_ids": torch.arange(16)[None]}
    whole = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
    }
    for key, new in whole.items():
        found[new] = state[key]
    found["visual_projection.weight"], found["text_projection.weight"] = state["visual.proj"].t(), state["text_projection"].t()
    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    for key, new in (norms | {"ln_final": "text_model.final_layer_norm"}).items():
        for kind in ("weight", "bias"):
            found[f"{new}.{kind}"] = state[f"{key}.{kind}"]
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for layer in range(2):
            a, b = f"{ours}.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            pairs = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
            for old, new in (pairs | {"attn.out_proj": "self_attn.out_proj"}).items():
                for kind in ("weight", "bias"):
                    found[f"{b}.{new}.{kind}"] = state[f"{a}.{old}.{kind}"]
            for kind in ("weight", "bias"):
                for part, rows in zip("qkv", state[f"{a}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    found[f"{b}.self_attn.{part}_proj.{kind}"] = rows
    return {key: value.contiguous().clone() for key, value in found.items()}


def test_names_go_there_and_back():
    clip = blueprint.make_module(config("vit"), "test")
    state = clip.state_dict()
    back = huggingface.renamed(as_transformers(state), "file")
    back.pop("text_model.embeddings.position_ids")
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def folder(path, content, **files):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(content))
    save_file({"x": torch.zeros(1)}, path / "model.safetensors")
    for name, text in files.items():
        (path / f"{name}.json").write_text(json.dumps(text))
    return f"clip:{path}"


def test_what_is_not_translated_says_what_to_do(tmp_path):
    clip = {"model_type": "clip", "text_config": TEXT, "vision_config": VISION}
    for name, content, told in (
        ("a", {"model_type": "siglip"}, "SigLIP model.*from open_clip, such as clip:ViT-B-16-SigLIP/webli"),
        ("b", {"model_type": "altclip"}, "'altclip' of transformers, not a CLIPModel; convert"),
        ("c", clip | {"vision_config": VISION | {"hidden_act": "relu"}}, "activations quick_gelu, relu"),
        ("d", clip, "another architecture"),
    ):
        spec = folder(tmp_path / name, content)
        with pytest.raises(UserError, match=told):
            models.build(spec)
        assert spec_identity(spec)


def test_a_vocabulary_of_its_own_is_not_replaced_by_open_clips(tmp_path):
    spec = folder(tmp_path / "m", {"model_type": "clip", "projection_dim": 32, "text_config": TEXT, "vision_config": VISION},
                  vocab={"cat": 0})  # fmt: skip
    settings, _ = huggingface.model_config(tmp_path / "m")
    state = blueprint.make_module(settings, "m").state_dict()
    save_file(as_transformers(state), tmp_path / "m" / "model.safetensors")
    with pytest.raises(UserError, match="a vocabulary of its own"):
        models.build(spec)
    (tmp_path / "m" / "vocab.json").unlink()
    assert models.build(spec).classifier(["cat", "dog"])(torch.rand(1, 3, 32, 32)).shape == (1, 2)
