"""What goes wrong in a user's own first file: each mistake is one line that says what was expected."""

import numpy as np
import pytest
import torch

from robustcal import registry
from robustcal.classifier import LogitClassifier
from robustcal.cli import main
from robustcal.engine.run import attack_and_judge
from robustcal.engine.samples import make_source
from robustcal.types import Batch, Threat, UserError


class Labelled:
    """A dataset of four samples and three classes with the labels of the test."""

    name, classnames, templates, task, resolution = "labelled", ("a", "b", "c"), ("{}",), "single", 8

    def __init__(self, labels):
        self.ids, self.labels = [f"labelled/{i}" for i in range(4)], np.array(labels)


@pytest.fixture
def labelled():
    @registry.datasets
    def labelled(*, last: int = 2, count: int = 4):
        return Labelled([0, 1, 2, last][:count])

    yield
    registry.datasets.plugins.pop("labelled")


@pytest.mark.parametrize("spec, said", [("last=3", "from 0 to 3"), ("last=-1", "from -1 to 2"), ("count=3", "3 labels")])
def test_labels_that_are_no_classes_are_refused(labelled, spec, said):
    assert len(make_source("labelled", None, 0).indices) == 4
    with pytest.raises(UserError, match=f"{said}.* for 4 samples of 3 classes"):
        make_source(f"labelled:{spec}", None, 0)


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


def test_an_attack_has_a_ball_that_is_verified():
    from robustcal.engine.plan import threat_of

    @registry.attacks(norm="l1")
    def diamond(classifier, images, labels, threat, noise):
        return images

    try:
        with pytest.raises(UserError, match="'diamond' has the norm l1, whose ball is not verified"):
            threat_of(*registry.attacks.arguments(registry.attacks.spec("diamond")), 1, 8)
    finally:
        registry.attacks.plugins.pop("diamond")


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
