"""Prompts: shared templates, templates per class and whole sentences, through one function and one text head."""

import pytest
import torch

import robustcal
from robustcal.clip.prompts import prompts_hash, sentences
from robustcal.types import UserError

torch.set_num_threads(1)
NAMES = ["red circle", "blue square", "green star"]


@pytest.fixture(scope="module")
def model():
    """The bundled CLIP model."""
    return robustcal.load_model("tiny-clip")


def test_sentences_of_each_class():
    shared = [["a cat", "the cat"], ["a dog", "the dog"]]
    assert sentences(["cat", "dog"], ["a {}", "the {}"]) == shared
    assert sentences(["cat", "dog"], [["a {}", "the {}"]] * 2) == shared
    assert sentences(["cat", "dog"], (("my cat",), ("a {}", "dogs"))) == [["my cat"], ["a dog", "dogs"]]


@pytest.mark.parametrize(
    "templates, message",
    [
        ("a {}", "neither a list of texts"),
        ([], "neither a list of texts"),
        (["a {}", ["b"]], "neither a list of texts"),
        (["a photo"], "'a photo' has no {} for the class name"),
        (["{} and {}"], "hold braces other than"),
        (["{} {c}"], "hold braces other than"),
        ([["a"]], "1 lists of templates for 2 classes"),
        ([["a"], []], "of class 'dog' are"),
        ([["a"], [3]], "of class 'dog' are"),
    ],
)
def test_templates_that_say_nothing_are_refused(templates, message):
    with pytest.raises(UserError, match=message):
        sentences(["cat", "dog"], templates)


def test_each_class_is_the_mean_of_its_own_sentences(model):
    own = [["a photo of a {}"], ["this is a {}", "a photo of a {}", "a blue square"], ["a {} object"]]
    head = model.text_head(NAMES, own)
    for label, texts in enumerate(own):
        units = [model.text_head([text.format(NAMES[label])], ["{}"])[0] for text in texts]
        assert torch.allclose(head[label], torch.nn.functional.normalize(torch.stack(units).mean(0), dim=0), atol=1e-6)


@pytest.mark.parametrize("templates", [["a photo of a {}"], ["a photo of a {}", "this is a {}", "a {} object"]])
def test_shared_templates_written_out_for_each_class_are_the_same_head(model, templates):
    assert torch.equal(model.text_head(NAMES, templates), model.text_head(NAMES, [templates] * 3))


def test_prompts_per_class_reach_every_model_that_wraps_another(model):
    own = [["a photo of a {}"], ["a blue square"], ["a {} object"]]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = model.classifier(NAMES, own)(images)
    assert torch.allclose(robustcal.load_model("temperature:model=tiny-clip:t=1").classifier(NAMES, own)(images), plain)
    defended = robustcal.load_model("ttc:model=tiny-clip:steps=1").classifier(NAMES, own)
    assert torch.equal(defended.deployed.head, model.text_head(NAMES, own))


def test_the_hash_follows_every_sentence():
    hashes = [
        prompts_hash(NAMES, templates)
        for templates in (["a {}"], ["b {}"], [["a {}"]] * 3, [["a {}"], ["a {}"], ["b {}"]], [["a {}", "b {}"]] * 3)
    ]
    assert len(set(hashes)) == 5
    assert prompts_hash(tuple(NAMES), (("a {}",),) * 3) == prompts_hash(NAMES, [["a {}"]] * 3)
