"""What the dataset cards say: complete, consistent with one another and with the name lists of other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from robustcal.datasets.card import prompts_of
from robustcal.datasets.names import normalised
from robustcal.registry import datasets

FIELD = [name for name, card in datasets.cards().items() if card["source"] in ("torchvision", "folder", "coco", "coop")]
PAPER_SIXTEEN = ["tiny-imagenet", "cifar10", "cifar100", "stl10", "sun397", "food101", "oxford-pets", "flowers102", "dtd", "eurosat", "fgvc-aircraft", "imagenet", "caltech101", "caltech256", "stanford-cars", "pcam"]
REQUIRED = {"title", "source", "split", "classes", "size", "resolution", "templates", "url", "get", "files"}


def test_the_sets_of_the_literature_all_have_cards():
    expected = {*PAPER_SIXTEEN, "imagenet-a", "imagenet-r", "imagenet-o", "imagenet-v2", "country211", "svhn"}
    assert expected | {"fashion-mnist", "coco-2017"} <= set(datasets.cards())
    # The sixteen test sets of the published tables hold 344 128 images.
    assert sum(datasets.cards()[name]["size"] for name in PAPER_SIXTEEN) == 344128


@pytest.mark.parametrize("name", FIELD)
def test_a_card_is_complete(name):
    card = datasets.cards()[name]
    assert set(card) >= REQUIRED
    assert card["resolution"] == 224 and "{root}" in card["get"]
    assert all(template.count("{}") == 1 for template in card["templates"])  # the default prompts are shared ones
    assert "splits" not in card or (card["split"] in card["splits"] and "size" not in card["splits"][card["split"]])
    assert all("size" in table for split, table in card.get("splits", {}).items() if split != card["split"])
    if isinstance(card.get("classnames"), (list, dict)):
        assert len(card["classnames"]) == card["classes"]


def test_presence_needs_neither_torch_nor_a_network():
    code = (
        "import sys; from robustcal import registry; from robustcal.datasets import presence\n"
        "rows = [presence.availability(card) for card in registry.datasets.cards().values()]\n"
        "assert len(rows) > 20 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def released():
    """{dataset: {class key: name in the released prompts}}, by the released loaders; whole lists but for the last sets."""
    found = {}
    for line in (Path(__file__).parent / "released_names.tsv").read_text().split("\n")[:-1]:
        dataset, key, name = line.split("\t")
        found.setdefault(dataset, {})[key] = name
    return found


@pytest.mark.parametrize("name", released())
def test_class_names_are_those_of_the_released_prompts(name):
    card, expected = datasets.cards()[name], released()[name]
    if len(expected) < card["classes"] and isinstance(card.get("classnames"), list):
        pytest.fail("a card with a list needs the whole list")
    assert list(prompts_of(card, "card", list(expected), None)[0]) == list(expected.values())


def test_the_released_lists_differ_from_the_keys_where_it_is_said():
    flowers, textures, countries = (released()[name] for name in ("flowers102", "dtd", "country211"))
    assert len(flowers) == 102 and not any("-" in name for name in flowers.values())
    assert [name for name in flowers.values() if name != name.strip()] == ["cyclamen ", "hippeastrum "]
    assert [key for key, name in textures.items() if key != name] == ["polka-dotted"] and len(textures) == 47
    assert countries["GW"] == "Guinea Bissau" and countries["TL"] == "Timor Leste"


def test_a_normalised_name():
    assert normalised("Polka-dotted_A/B ?", "_-/", True) == "polka dotted a b ?"
    assert normalised("A340-200_x", "_", True) == "a340-200 x" and normalised("cyclamen ") == "cyclamen "


def test_the_wordnet_names_collide_three_times_and_clip_names_twice():
    from robustcal.datasets import names

    def repeated(table):
        seen = [name.lower() for name in table.values()]
        return sorted({name for name in seen if seen.count(name) > 1})

    assert len(names.wordnet()) == len(names.clip_names()) == len(names.torchvision_categories()) == 1000
    assert repeated(names.wordnet()) == ["cardigan", "crane", "maillot"]
    assert repeated(names.clip_names()) == ["missile", "sunglasses"]
    assert repeated(names.torchvision_categories()) == ["cardigan"]
