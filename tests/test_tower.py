"""The faster forward pass of a vision transformer computes what the module itself computes."""

import open_clip
import pytest
import torch
from tiny_clip import config

from robustcal.clip import tower
from robustcal.clip.classifier import ClipModel


def tiny_vit(quick_gelu=False, **changes):
    torch.manual_seed(0)
    values = {**config("vit"), "quick_gelu": quick_gelu}
    vision = {**values["vision_cfg"], **changes}
    model = open_clip.model.CLIP(**{**values, "vision_cfg": open_clip.model.CLIPVisionCfg(**vision)})
    for parameter in model.parameters():  # biases are zero at birth, which would hide a forgotten one
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_embedding_and_gradients_are_those_of_the_module(dtype, quick_gelu):
    visual = tiny_vit(quick_gelu).visual.to(dtype)
    assert tower.is_plain(visual)
    assert type(visual.transformer.resblocks[0].mlp[1]).__name__ == ("QuickGELU" if quick_gelu else "GELU")
    weights = torch.randn(5, 32, dtype=dtype)
    results = []
    for forward in (visual, lambda pixels: tower.class_embedding(visual, pixels)):
        pixels = torch.rand(5, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)
        embedding = forward(pixels)
        leaves = [pixels, *visual.parameters()]
        results.append([embedding, *torch.autograd.grad((embedding * weights).sum(), leaves)])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for plain, fast in zip(*results):
        assert torch.allclose(plain, fast, atol=tolerance * plain.abs().max().item(), rtol=tolerance)


def test_quick_gelu_keeps_one_tensor_of_the_hidden_width_in_every_block():
    visual = tiny_vit(quick_gelu=True).visual.requires_grad_(False)
    block = visual.transformer.resblocks[0]
    hidden = block.mlp[0].out_features * 4 * 10  # bytes of ten tokens
    x = torch.rand(10, block.mlp[0].in_features, requires_grad=True)
    bytes_of = {}
    for name, forward in (("module", block.mlp), ("ours", lambda x: tower.perceive(block.mlp, x))):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.setdefault(t.data_ptr(), t), lambda t: t):
            forward(x)
        bytes_of[name] = sum(t.nbytes for t in kept.values() if t.shape == (10, block.mlp[0].out_features))
    assert bytes_of == {"module": 2 * hidden, "ours": hidden}


def test_a_hooked_quick_gelu_takes_the_plain_way():
    mlp = tiny_vit(quick_gelu=True).visual.transformer.resblocks[0].mlp
    seen = []
    mlp[1].register_forward_hook(lambda *arguments: seen.append(1))
    tower.perceive(mlp, torch.rand(2, mlp[0].in_features))
    assert seen


@pytest.mark.parametrize("changes", [{"pool_type": "avg"}, {"patch_dropout": 0.5}, {"attentional_pool": True}])
def test_special_towers_take_the_plain_way(changes):
    assert not tower.is_plain(tiny_vit(**changes).visual)


def test_hooks_checkpoints_and_other_modules_take_the_plain_way():
    visual = tiny_vit().visual
    handle = visual.transformer.resblocks[0].attn.register_forward_hook(lambda *arguments: None)
    assert not tower.is_plain(visual)
    handle.remove()
    assert tower.is_plain(visual)
    visual.set_grad_checkpointing(True)
    assert not tower.is_plain(visual) and not tower.is_plain(torch.nn.Linear(2, 2))


def test_classifier_uses_it():
    clip = tiny_vit()
    model = ClipModel(clip, lambda texts: torch.zeros(len(texts), 16, dtype=torch.long), size=32, mean=(0.5,) * 3,
                      std=(0.2,) * 3, fingerprint="")  # fmt: skip
    classifier = model.classifier(["a", "b"])
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        plain = clip.visual(classifier.preprocess(images))
    assert torch.allclose(classifier.embed(images), plain, atol=1e-5)
