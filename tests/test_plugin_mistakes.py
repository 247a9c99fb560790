"""What goes wrong in a user's own first file: each mistake is one line that says what was expected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cells import cell as make_cell

import robustcal
from robustcal import registry
from robustcal.cli import main
from robustcal.clip.classifier import LogitClassifier
from robustcal.sweep.declared import threat_of
from robustcal.sweep.meter import Meter
from robustcal.sweep.reading import checked
from robustcal.sweep.run import attack_and_judge, run_shard
from robustcal.sweep.samples import make_source
from robustcal.types import Batch, Threat, UserError


class Labelled:
    """A dataset of four samples and three classes with the labels of the test."""

    name, classnames, templates, task, resolution = "labelled", ("a", "b", "c"), ("{}",), "single", 8

    def __init__(self, labels):
        self.ids, self.labels = [f"labelled/{i}" for i in range(4)], np.array(labels)

    def read(self, indices):
        raise AssertionError("nothing is read to plan")


@pytest.fixture
def labelled():
    @registry.datasets
    def labelled(*, last: int = 2, count: int = 4):
        return Labelled([0, 1, 2, last][:count])

    yield
    registry.datasets.plugins.pop("labelled")


@pytest.mark.parametrize("spec, said", [("last=3", "from 0 to 3"), ("last=-1", "from -1 to 2"), ("count=3", "3 labels")])
def test_labels_that_are_no_classes_are_refused(labelled, spec, said):
    assert len(make_source(registry.datasets.spec("labelled"), 0).order) == 4
    with pytest.raises(UserError, match=f"{said}.* for 4 samples of 3 classes"):
        make_source(registry.datasets.spec(f"labelled:{spec}"), 0)


@pytest.mark.parametrize("change, said", [
    ({"task": "singel"}, "task 'singel'"), ({"templates": "a photo of a {}"}, "list of texts"),
    ({"templates": ["a photo"]}, "'a photo' has no {} for the class name"), ({"ids": ["same"] * 4}, "one id to several samples"),
    ({"read": None}, None),
])  # fmt: skip
def test_a_dataset_keeps_the_protocol(labelled, change, said, monkeypatch):
    for name, value in change.items():
        if value is None:
            monkeypatch.delattr(Labelled, name)
        else:
            monkeypatch.setattr(Labelled, name, property(lambda self, value=value: value, lambda self, new: None), raising=False)
    with pytest.raises(UserError, match=said or "is a Labelled without read"):
        make_source(registry.datasets.spec("labelled"), 0)


@pytest.mark.parametrize("change, said", [
    ({"ids": ("labelled/1", "labelled/0")}, "ids other than"), ({"images": torch.rand(2, 3, 4, 4)}, r"\(2, 3, 4, 4\).* resolution 8"),
    ({"images": torch.full((2, 3, 8, 8), 255.0)}, "to 255; they are float32 in"), ({"labels": torch.tensor([1, 1])}, "labels other"),
    ({"images": torch.full((2, 3, 8, 8), torch.nan)}, "float32 in"), ({"labels": torch.tensor([0, 1]).int()}, "int64"),
    ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "uint8"),
])  # fmt: skip
def test_what_a_dataset_reads_is_checked(change, said):
    dataset = Labelled([0, 1, 2, 2])
    good = Batch(("labelled/0", "labelled/1"), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    assert checked(good, dataset, [0, 1]) is good
    with pytest.raises(UserError, match=said):
        checked(replace(good, **change), dataset, [0, 1])


def test_a_dataset_of_a_users_file_is_told_apart_by_the_file(labelled, monkeypatch):
    spec = registry.datasets.spec("labelled")
    plugin = registry.datasets.plugins["labelled"]
    found = set()
    for digest in ("one", "two"):
        registry.datasets.plugins["labelled"] = replace(plugin, source_sha256=digest)
        found.add(make_source(spec, 0).identity)
    assert found == {"one", "two"}


def judge(attack, net=None):
    images = torch.rand(4, 3, 8, 8)
    net = net or torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    batch = Batch(tuple("abcd"), images, torch.tensor([0, 1, 2, 0]))
    return attack_and_judge(attack, LogitClassifier(net, ["a", "b", "c"]), batch, Threat(0.1))


@pytest.mark.parametrize("returned, said", [
    (lambda x: None, "NoneType"), (lambda x: (x, x), "tuple"), (lambda x: x[:1], r"\(1, 3, 8, 8\)"),
    (lambda x: x[..., :4], r"\(4, 3, 8, 4\)"),
])  # fmt: skip
def test_an_attack_returns_images(returned, said):
    judge(lambda classifier, images, labels, threat, noise: images)
    with pytest.raises(UserError, match=f"the attack returned .*{said}.* of the shape it was given"):
        judge(lambda classifier, images, labels, threat, noise: returned(images))


@pytest.mark.parametrize("declared, said", [
    ({"norm": "l1"}, "'odd' has the norm l1, whose ball is not verified"),
    ({"norm": "Linf"}, "declares norm='Linf'; there are: linf, l2"), ({"kind": "whitebox"}, "there are: clean, control, shift, white-box"),
    ({"returns": "final"}, "there are: last, best"), ({"accuracy_onyl": True}, "'accuracy_onyl', which means nothing"),
    ({"goal": "targetd"}, "there are: untargeted, targeted"),
])  # fmt: skip
def test_what_an_attack_declares_has_a_meaning(declared, said):
    @registry.attacks(**declared)
    def odd(classifier, images, labels, threat, noise):
        return images

    try:
        with pytest.raises(UserError, match=said):
            threat_of(*registry.attacks.arguments(registry.attacks.spec("odd")), 1, 8)
    finally:
        registry.attacks.plugins.pop("odd")


def test_an_attack_that_writes_on_its_inputs_deceives_nobody():
    def vandal(classifier, images, labels, threat, noise):
        labels += 1
        return images.mul_(0)

    adversarial, columns = judge(vandal)
    assert columns["label"].tolist() == [0, 1, 2, 0] and columns["flags"] == ["outside-ball"] * 4
    assert np.allclose(columns["linf"], 0.1, atol=1e-6)
    net, images, labels = torch.nn.Flatten().eval(), torch.rand(2, 3, 1, 1), torch.tensor([0, 1])
    before = images.clone()
    registry.attacks(vandal)
    try:
        found = robustcal.attack("vandal", net, images, labels, eps=0.1)
    finally:
        registry.attacks.plugins.pop("vandal")
    assert torch.equal(images, before) and labels.tolist() == [0, 1] and (found - before).abs().max() <= 0.1 + 1e-6


def test_logits_that_are_not_finite_are_refused():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    net[1].bias.data[1] = torch.nan
    with pytest.raises(UserError, match="logits that are not finite for 4 of 4 images"):
        judge(lambda classifier, images, labels, threat, noise: images, net)


def test_gradients_come_in_the_layout_of_the_images():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 3))
    meter = Meter(LogitClassifier(net, ["a", "b", "c"]).to(memory_format=torch.channels_last), 4)
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(meter(images).sum(), images)
    assert gradient.view(4, -1).shape == (4, 192)


def test_an_error_names_the_cell():
    def fragile(classifier, images, labels, threat, noise):
        raise KeyError("oops")

    cell = make_cell("fragile", "1/10", model="m", dataset="d")
    batch = Batch(tuple("ab"), torch.rand(2, 3, 1, 1), torch.tensor([0, 1]))
    with pytest.raises(UserError, match=r"attack 'fragile' on model 'm', dataset 'd': KeyError: 'oops' \(.*py:\d+\)"):
        run_shard(cell, batch, LogitClassifier(torch.nn.Flatten(), ["a", "b", "c"]), fragile, 2)


def test_a_classifier_returns_one_logit_for_each_class():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    with pytest.raises(UserError, match=r"returned \(4, 5\) for 4 images of 3 classes"):
        judge(lambda classifier, images, labels, threat, noise: images, net)


def test_a_model_is_more_than_a_network(tmp_path, capsys):
    text = "import torch\nfrom robustcal import register\n@register.model\ndef bare():\n    return torch.nn.Linear(3, 2)\n"
    (tmp_path / "bare.py").write_text(text)
    options = ["--attacks", "clean", "--datasets", "digits", "--out", str(tmp_path / "run")]
    try:
        assert main(["bench", "--plugin", str(tmp_path / "bare.py"), "--models", "bare", *options]) == 2
    finally:
        registry.models.plugins.pop("bare", None)
    error = capsys.readouterr().err.splitlines()
    assert error[-1] == "robustcal: model 'bare' is a Linear without .classifier(classnames, templates) or .fingerprint"
    assert not any("Traceback" in line for line in error) and not (tmp_path / "run").exists()
