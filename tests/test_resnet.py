"""The residual tower as sweeps run it: open_clip's own module is the oracle, in float64."""

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet

from robustcal.clip import resnet
from robustcal.clip.classifier import spatial_tokens
from robustcal.registry import models
from robustcal.sweep.worker import on_device

torch.set_num_threads(1)
CLASSES = ["cat", "dog", "ship"]


def tower(size=64, layers=(2, 1, 1, 2), width=8):
    """Random weights, and statistics that no freshly made batch norm has."""
    torch.manual_seed(0)
    visual = ModifiedResNet(layers, 24, 4, image_size=size, width=width)
    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return visual.eval().double()


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_embeddings_and_input_gradients_are_those_of_the_module(size, layout):
    visual = tower(size)
    fast = resnet.folded(visual).to(memory_format=layout)
    images = torch.randn(5, 3, size, size, dtype=torch.float64)
    weights = torch.randn(5, 24, dtype=torch.float64)
    found = []
    for net in (visual, fast):
        inputs = images.clone().requires_grad_()
        out = net(inputs)
        found.append((out.detach(), torch.autograd.grad((out * weights).sum(), inputs)[0]))
    (embedding, gradient), (fast_embedding, fast_gradient) = found
    assert embedding.abs().max() > 1e-3 and gradient.abs().max() > 1e-6
    assert torch.allclose(embedding, fast_embedding, rtol=1e-9, atol=1e-12)
    assert torch.allclose(gradient, fast_gradient, rtol=1e-8, atol=1e-12)


def test_the_tower_itself_stays_as_it_was_and_no_norm_is_left_in_the_copy():
    visual = tower()
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    fast = resnet.folded(visual)
    assert all(torch.equal(before[name], value) for name, value in visual.state_dict().items())
    assert not [module for module in fast.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert torch.allclose(spatial_tokens(visual, images), spatial_tokens(fast, images), rtol=1e-9)


def test_a_tower_that_is_trained_hooked_or_of_another_kind_is_left_alone():
    visual = tower()
    assert resnet.is_plain(visual)
    assert not resnet.is_plain(visual.train())
    visual.eval().layer1.register_forward_hook(lambda *_: None)
    assert not resnet.is_plain(visual)
    assert not resnet.is_plain(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("spec", ["tiny-clip", "ttc:model=tiny-tecoa:reference=tiny-clip"])
def test_every_tower_of_a_model_is_folded_on_the_device_of_a_sweep(spec):
    plain, fast = models.build(spec), on_device(models.build(spec), "cpu")
    images = torch.rand(4, 3, 32, 32)
    expected, found = (model.classifier(CLASSES)(images) for model in (plain, fast))
    assert torch.allclose(expected, found, atol=1e-3)
    norms = [module for module in fast.classifier(CLASSES).modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms == []
