"""Attack loops on a GPU that is not there: fake tensors know their device and have no values.

An operation on tensors of two devices raises as on a GPU, and so does reading a value (`.item()`, `bool`, `tolist`),
which on a GPU would wait for the device. Gradients are replaced by tensors like their inputs, for the autograd
engine wants a device.
"""

import pytest
import torch

import robustcal
from robustcal.noise import Noise
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import make_attack
from robustcal.types import Threat

FakeTensorMode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode
ATTACKS = [
    "clean", "noise", "fgsm", "pgd:steps=2", "pgd:steps=2:restarts=2:return=last", "pgd:norm=l2:steps=2",
    "pgd:loss=margin:steps=2", "pgd:loss=dlr:steps=2:momentum=0.9", "cw:steps=2", "confidence:goal=up:steps=2",
    "confidence:goal=down:steps=2", "confidence:goal=max:steps=2", "confidence:goal=random:steps=2", "composite:steps=2",
]  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    def gradients(outputs, inputs, *args, **kwargs):
        return tuple(torch.randn_like(i.detach()) for i in (inputs if isinstance(inputs, (list, tuple)) else (inputs,)))

    monkeypatch.setattr(torch.autograd, "grad", gradients)
    with FakeTensorMode() as mode:
        yield mode


@pytest.fixture(scope="module")
def tiny():
    return robustcal.load_model("tiny-clip").classifier(["circle", "square", "star"], ["This is a photo of a {}"])


def on_gpu(classifier):
    """The classifier with fake weights in place of its own."""
    for module in classifier.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    held[name] = torch.nn.Parameter(fake, requires_grad=False) if held is module._parameters else fake
    return classifier


@pytest.mark.parametrize("search", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_attacks_stay_on_the_device_and_never_wait_for_it(tiny, gpu, search):
    classifier = on_gpu(tiny)
    images, labels = torch.rand(4, 3, 48, 48, device="cuda"), torch.randint(0, 3, (4,), device="cuda")
    for spec in ATTACKS:
        attack = make_attack(spec)
        found = attack(Meter(classifier, 4, search), images, labels, Threat(0.03), Noise(0, list("abcd"), "cuda"))
        assert found.device.type == "cuda" and found.dtype == torch.float32 and found.shape == images.shape, spec
    assert classifier(images).device.type == "cuda"


def test_a_loop_that_reads_a_value_is_found_out(gpu):
    loss = torch.rand(4, device="cuda")
    with pytest.raises(Exception, match="scalar|data"):
        bool(loss.sum() > 1)
    with pytest.raises(RuntimeError, match="device"):
        loss + torch.rand(4)
