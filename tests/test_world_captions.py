"""Captions that say what their image shows, and a vocabulary in which every word of theirs is one token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcal.datasets.world import SUBSETS
from robustcal.models.tiny_tokenizer import MERGES, caption_tokens, learn_merges, tiny_tokenizer, write_merges
from robustcal.registry import datasets
from robustcal.world.attributes import COLORS, SHAPES
from robustcal.world.captions import FAMILIES, caption_batch, prompts, vocabulary_texts

CARDS = [f"world-{subset}" for subset in SUBSETS] + ["digits"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_captions_say_what_is_there():
    batch = caption_batch(range(3000))
    kinds = [(batch.attributes[kind] >= 0).double().mean().item() for kind in ("shape", "letter", "digit")]
    assert np.allclose(kinds, (0.60, 0.24, 0.16), atol=0.03)
    for index, text in enumerate(batch.captions):
        body, _, ground = text.partition(" on ")
        words = body.split()
        for family in ("shape", "color", "texture", "digit"):
            value = batch.attributes[family][index].item()
            named = [name for name in FAMILIES[family][0] if name in words]
            assert named in ([], [FAMILIES[family][0][value]] if value >= 0 else [])
        if "letter" in words:
            assert words[-1] == FAMILIES["letter"][0][batch.attributes["letter"][index]]
        if ground:
            assert FAMILIES["background"][0][batch.attributes["background"][index]] == ground.split()[1]
    pair = batch.attributes["composition"]
    for index in torch.nonzero(pair >= 0).flatten()[:200].tolist():
        color, shape = FAMILIES["composition"][0][pair[index]].split()
        assert COLORS.index(color) == batch.attributes["color"][index]
        assert SHAPES.index(shape) == batch.attributes["shape"][index]


def test_a_caption_sample_is_the_same_in_any_batch():
    whole = caption_batch(range(100, 180), difficulty=0.7)
    for index in (0, 41, 79):
        alone = caption_batch([100 + index], difficulty=0.7)
        assert torch.equal(alone.images[0], whole.images[index]) and alone.captions[0] == whole.captions[index]
    assert caption_batch(range(30), split="val").captions != caption_batch(range(30)).captions


def test_every_word_is_one_token_and_fits_the_context(tokenizer):
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1  # open_clip pools at the largest id
    texts = list(caption_batch(range(2000)).captions) + vocabulary_texts()
    for name in CARDS:
        data = datasets.build(name)
        texts += [template.format(label) for template in data.templates for label in data.classnames]
    assert {len(tokenizer.encode(word)) for text in texts for word in text.split()} == {1}
    assert max(len(text.split()) for text in texts) + 2 <= tokenizer.context_length
    assert torch.equal(caption_tokens(tokenizer, texts), tokenizer(texts))


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(categories=("Ll", "Lo", "So")), min_size=1, max_size=10))
def test_unknown_words_fall_back_to_bytes(text):
    tokenizer = tiny_tokenizer()
    clean = tokenizer.clean_fn(text)
    assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == clean.replace(" ", "")


def test_the_bundled_merges_are_what_the_command_writes(tmp_path):
    write_merges(tmp_path / "bpe.txt.gz", learn_merges(vocabulary_texts()))
    assert (tmp_path / "bpe.txt.gz").read_bytes()[10:] == MERGES.read_bytes()[10:]


def test_merges_are_learned_greedily():
    assert learn_merges(["aab aab ab"])[0] == ("a", "b</w>")
    assert learn_merges(["aab aab ab"])[1] == ("a", "ab</w>")
    assert learn_merges(["a b"]) == []


def test_prompts_follow_the_attribute_values():
    assert prompts("letter", 2)[3] == "the letter d" and prompts("color")[0] == "This is a photo of a red object"
    assert len(prompts("composition")) == 192
