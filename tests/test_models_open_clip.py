"""Whatever `open_clip.create_model` loads, loads here with the same logits: every architecture that open_clip ships, small.

Each config keeps its keys and its kinds of tower; widths, depths and vocabulary shrink. Left out: text towers of
transformers (`hf_model_name`), whose configs are on the hub. timm towers stand under the smallest test model of timm with
the same pooling that the config allows, since their sizes are part of their names.
"""

import copy
import json
from dataclasses import replace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import config

from robustcal.models import blueprint, folder
from robustcal.types import UserError

torch.set_num_threads(1)
TIMM = {"vit": "test_vit", "convnext": "test_convnext", "resnet": "test_resnet", "": "test_efficientnet"}
CONFIGS = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
OWN = {name: settings for name, settings in CONFIGS.items() if "hf_model_name" not in settings["text_cfg"]}


def shrunk(settings):
    """The config with small numbers. Ratios that must be whole (width / head width, width / heads) stay whole."""
    small = copy.deepcopy(settings)
    small["embed_dim"] = 16
    vision, text = small["vision_cfg"], small["text_cfg"]
    if "timm_model_name" in vision:
        family = vision["timm_model_name"]
        pooled = family.startswith("vit") and vision.get("timm_pool") == "map"
        small_one = next(test for start, test in TIMM.items() if family.startswith(start))
        vision["timm_model_name"] = "test_vit3" if pooled else small_one
        vision["image_size"] = 160 if pooled else 64
        vision["timm_model_pretrained"] = False
        if "vit" not in vision["timm_model_name"] and vision.get("timm_pool") in ("map", "token"):
            vision["timm_pool"] = "avg"
        if vision.get("timm_proj") in ("none", "", None):  # then the tower's own width is the embedding's
            vision["timm_proj"] = "linear"
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}
    else:
        patch = vision.get("patch_size", 16)
        vision |= {"layers": 2, "width": 32, "head_width": 16, "image_size": 2 * patch + vision["image_size"] % patch}
        if vision.get("attentional_pool"):
            vision |= {"attn_pooler_heads": 2, "attn_pooler_queries": 4}
    for key in ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"):  # ids come from this test
        text.pop(key, None)
    text |= {"width": 16, "heads": 2, "layers": 2, "vocab_size": 64}
    if "multimodal_cfg" in small:
        small["multimodal_cfg"] |= {"width": 16, "heads": 2, "layers": 1, "context_length": text.get("context_length", 77)}
        small["multimodal_cfg"] |= {"vocab_size": 64, "dim_head": 8, "attn_pooler_heads": 2, "n_queries": 4}
        small["multimodal_cfg"] = {k: v for k, v in small["multimodal_cfg"].items() if k in settings["multimodal_cfg"] or k == "width"}
    return small


#: Configs that are equal once they are small are one case.
CASES = {json.dumps(shrunk(settings), sort_keys=True): name for name, settings in OWN.items()}


def write(path, settings, change=lambda state: state):
    """A folder with random weights, as open_clip would write it, after a change to the stored tensors."""
    torch.manual_seed(0)
    module = blueprint.make_module(settings, "test")
    for name, value in module.named_parameters():
        if name == "text_decoder.text_projection":  # open_clip leaves it as the memory was
            torch.nn.init.normal_(value, std=0.01)
    folder.save_local_dir(module, settings, path)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    save_file({k: v.contiguous().clone() for k, v in change(state).items()}, path / folder.WEIGHTS)
    return path


def both_ways(path):
    """Image and text embeddings, scale and bias: by open_clip's own loading and by ours."""
    own = open_clip.create_model(f"local-dir:{path}").eval()
    plan = folder.from_local_dir(path)
    length = plan.config["text_cfg"].get("context_length", 77)
    tokens = torch.randint(1, 63, (3, length), generator=torch.Generator().manual_seed(1))
    model = blueprint.build(replace(plan, tokenizer=lambda: lambda texts: tokens[: len(texts)]))
    images = torch.rand(2, 3, model.size, model.size, generator=torch.Generator().manual_seed(2))
    classifier = model.classifier(["a", "b", "c"])
    with torch.no_grad():
        pixels = own.encode_image(classifier.preprocess(images), normalize=True)
        head = own.encode_text(tokens, normalize=True)
        expected = own.logit_scale.exp() * pixels @ head.T
        if getattr(own, "logit_bias", None) is not None:
            expected = expected + own.logit_bias
        return classifier(images), expected, model


@pytest.mark.parametrize("settings", [pytest.param(json.loads(text), id=name) for text, name in CASES.items()])
def test_every_shipped_architecture_gives_the_logits_of_open_clip(tmp_path, settings):
    found, expected, _ = both_ways(write(tmp_path / "m", settings))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_table_above_covers_what_open_clip_ships():
    left_out = {name for name in CONFIGS if name not in OWN}
    assert len(OWN) > 100 and len(left_out) < 25 and all("hf_model_name" in CONFIGS[n]["text_cfg"] for n in left_out)


def renamed(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def causal(n, low=float("-inf")):
    return torch.full((n, n), low).triu(1)


def old_text_names(state):
    """As checkpoints of the time before custom text towers name it."""
    return {key.removeprefix("text."): value for key, value in state.items()}


def shape(key, *sizes):
    return lambda state: state | {key: state[key].reshape(sizes)}


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def longer(key, rows):
    return lambda state: state | {key: torch.randn(rows, state[key].shape[1], generator=torch.Generator().manual_seed(3))}


MENDED = {
    "wrapped by DataParallel": (False, renamed("module.")),
    "scale as a vector": (False, shape("logit_scale", 1)),
    "bias as a vector": (True, shape("logit_bias", 1)),
    "old names of the text tower": (True, old_text_names),
    "no logit bias": (True, without("logit_bias")),
    "another image size": (False, longer("visual.positional_embedding", 50)),
    "another context": (False, longer("positional_embedding", 77)),
}


@pytest.mark.parametrize("case", MENDED)
def test_what_open_clip_mends_is_mended_the_same_way(tmp_path, case):
    sigmoid, change = MENDED[case]
    found, expected, model = both_ways(write(tmp_path / "m", config("vit", sigmoid=sigmoid), change))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert bool(model.notes) is (case in ("no logit bias", "another image size", "another context"))


BUFFERS = {
    "attn_mask": causal(16),
    "transformer.attn_mask": causal(16, torch.finfo(torch.float16).min),
    "text.transformer.embeddings.position_ids": torch.arange(80)[None],
    "visual.embeddings.position_ids": torch.arange(5),
}
OTHERS = {"attn_mask": causal(16).t(), "transformer.attn_mask": torch.zeros(16, 16), "visual.position_ids": torch.ones(5)}


@pytest.mark.parametrize("key", BUFFERS)
def test_stored_buffers_that_say_what_the_model_computes_are_dropped(tmp_path, key):
    plain, _, _ = both_ways(write(tmp_path / "a", config("vit")))
    found, _, _ = both_ways_here(write(tmp_path / "b", config("vit"), lambda state: state | {key: BUFFERS[key]}))
    assert torch.equal(found, plain)


@pytest.mark.parametrize("key", OTHERS)
def test_stored_buffers_that_say_something_else_are_refused(tmp_path, key):
    path = write(tmp_path / "m", config("vit"), lambda state: state | {key: OTHERS[key]})
    with pytest.raises(UserError, match=f"its buffer '{key}' is not the one"):
        both_ways_here(path)


def both_ways_here(path):
    """Our half of `both_ways`, for files that open_clip itself refuses."""
    plan = folder.from_local_dir(path)
    tokens = torch.randint(1, 63, (3, 16), generator=torch.Generator().manual_seed(1))
    model = blueprint.build(replace(plan, tokenizer=lambda: lambda texts: tokens[: len(texts)]))
    images = torch.rand(2, 3, model.size, model.size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.classifier(["a", "b", "c"])(images), None, model


@pytest.mark.parametrize("size", [32, 33, 39])
def test_pixels_beyond_the_last_patch_are_read_by_neither(tmp_path, size):
    settings = config("vit")
    settings["vision_cfg"]["image_size"] = size
    found, expected, model = both_ways(write(tmp_path / "m", settings))
    assert model.size == size
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_may_have_any_of_the_names_open_clip_takes(tmp_path):
    path = write(tmp_path / "m", config("vit"))
    expected = both_ways(path)[0]
    own = (path / folder.WEIGHTS).rename(path / "epoch_32.safetensors")
    assert torch.equal(both_ways(path)[0], expected)
    (path / "epoch_31.safetensors").write_bytes(own.read_bytes())
    with pytest.raises(UserError, match=r"several weights files \(epoch_31.safetensors, epoch_32.safetensors\)"):
        folder.from_local_dir(path)
