"""Classes a text head cannot tell apart are named; a prompt the model would not read to its end is refused."""

import unicodedata

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_clip import write_model

from robustcal.clip.alike import SAME, alike, plain
from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)


def kinds(names, head=None):
    return [(finding.kind, finding.names) for finding in alike(names, head)]


def test_names_that_only_look_different():
    composed, apart = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    assert composed != apart and kinds([composed, "dog", apart]) == [("same-name", (composed, apart))]
    assert kinds(["Cat", "cat ", "dog"]) == [("same-name", ("Cat", "cat "))]
    assert kinds(["traffic  light", "traffic\u00a0light"]) == [("same-name", ("traffic  light", "traffic\u00a0light"))]
    assert kinds(["", "dog", " "]) == [("empty", ("class 0", "class 2"))]
    assert kinds(["crane (bird)", "crane", "dog"]) == [("root", ("crane", "crane (bird)"))]
    assert kinds(["bus, double-decker", "bus (coach)"]) == [] == kinds(["cat", "dog", "C3", "C4"])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["cat", "CAT", "Cat ", "dog", "", "  ", "ca\u0301t", "c\u00e1t"]), max_size=8))
def test_duplicates_agree_with_a_naive_loop(names):
    expected = {i for i, a in enumerate(names) if plain(a) for j, b in enumerate(names) if i != j and plain(a) == plain(b)}
    found = [name for finding in alike(names) if finding.kind == "same-name" for name in finding.names]
    assert sorted(found) == sorted(names[i] for i in expected)


@example([0, 1] * 600, 0)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=1100), st.integers(0, 99))
def test_equal_rows_are_grouped_whatever_their_number(rows, seed):
    """Each class takes one of five orthogonal directions: the groups are those that share a direction."""
    noise = torch.randn(len(rows), 6, generator=torch.Generator().manual_seed(seed)) * 1e-4
    head = F.normalize(torch.eye(6)[rows] + noise, dim=1)
    names = [f"n{i}" for i in range(len(rows))]
    groups = {d: tuple(n for n, row in zip(names, rows, strict=True) if row == d) for d in dict.fromkeys(rows)}
    assert kinds(names, head) == [("same-row", group) for group in groups.values() if len(group) > 1]


def test_the_threshold_is_a_cosine():
    for angle, same in ((0.9 * torch.tensor(SAME).acos(), True), (1.1 * torch.tensor(SAME).acos(), False)):
        head = torch.stack([torch.tensor([1.0, 0.0]), torch.stack([angle.cos(), angle.sin()])])
        assert bool(kinds(["a", "b"], head)) is same


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.build(f"open-clip:local-dir:{write_model(tmp_path_factory.mktemp('m') / 'vit', tower='vit')}")


def test_a_classifier_says_which_of_its_classes_are_one(model):
    assert model.classifier(["cat", "dog"]).alike == ()
    said = model.classifier(["cat", "CAT", "dog"]).alike  # the tokenizer lower-cases, so their rows are equal too
    assert len(said) == 2 and "one name: 'cat', 'CAT'" in said[0] and "one text embedding" in said[1]
    whole = model.classifier(["cat", "dog"], [["this is a photo"], ["this is a photo"]]).alike
    assert whole == (f"classes of one text embedding (cosine of {SAME} or more): 'cat', 'dog'",)


@pytest.mark.parametrize("words", [13, 14, 15, 40])
def test_a_prompt_is_read_to_its_end_or_refused(model, words):
    """Context 16 holds the start, the end and 14 words; the vocabulary has each of these words as one token."""
    text = " ".join(["photo"] * (words - 1) + ["{}"])
    if words <= 14:
        assert model.classifier(["cat", "dog"], [text]).alike == ()
    else:
        told = f"the prompt 'photo .*cat' has {words + 2} tokens, but the context of model '.*' is 16"
        with pytest.raises(UserError, match=told):
            model.text_head(["cat", "dog"], ["a {}", text])


def test_one_long_name_among_many_is_found(model):
    names = [f"cat {'zero ' * i}" for i in range(5)] + ["one " * 14] + ["dog"] * 300
    with pytest.raises(UserError, match="one one .* has 17 tokens"):
        model.text_head(names, ["a {}"])


def test_a_tokenizer_that_pads_with_its_end_token_is_measured_as_well(model):
    """As the tokenizers of SigLIP do: end and padding are one number, and a cut text keeps the end."""
    def ending(texts, context_length=8):
        rows = [[len(word) + 5 for word in text.split()][: context_length - 1] + [1] for text in texts]
        return torch.tensor([row + [1] * (context_length - len(row)) for row in rows])

    from robustcal.clip.prompts import tokens_of

    assert tokens_of(ending, ["a b", "a b c d e f g"], "m").shape == (2, 8)
    with pytest.raises(UserError, match="has 9 tokens, but the context of model 'm' is 8"):
        tokens_of(ending, ["a b", "a b c d e f g h"], "m")
