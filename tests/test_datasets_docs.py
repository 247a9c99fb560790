"""The dataset page: its table agrees with the cards, and its examples run as printed."""

import re
from pathlib import Path

import dataset_files as files
import numpy as np
import pytest
import torch

from robustcal.clip.prompts import sentences
from robustcal.registry import datasets, load_plugin_file
from robustcal.types import Dataset

torch.set_num_threads(1)
PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()


def block(language):
    """The last code block of a language: of your own source, or your own card."""
    *_, text = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return text


@pytest.fixture
def registry(monkeypatch):
    """The dataset family, restored after the test; what it has is loaded before, or it would be forgotten."""
    for name in datasets.names():
        datasets.get(datasets.cards().get(name, {}).get("source", name))
    monkeypatch.setattr(datasets, "_cards", dict(datasets.cards()))
    monkeypatch.setattr(datasets, "plugins", dict(datasets.plugins))
    return datasets


def test_the_table_agrees_with_the_cards():
    rows = {row[0].strip("` "): [cell.strip() for cell in row] for row in
            (line.strip("|").split("|") for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9-]+` \|.*\d", line))
            if len(row) == 8}  # fmt: skip
    cards = {name: card for name, card in datasets.cards().items() if card["source"] not in ("world", "digits")}
    assert set(rows) == set(cards)
    for name, card in cards.items():
        expected = [str(card["classes"]), str(card["size"]), card["preprocess"], str(card.get("native", ""))]
        assert rows[name][2:7] == [*expected, card["templates"][0]], name


def test_the_source_of_the_page_runs(tmp_path, registry):
    (tmp_path / "scans.py").write_text(block("python"))
    images = np.stack([files.flat(label, 30, 40) for label in (1, 0, 2)])
    np.savez(tmp_path / "three.npz", images=images, labels=[1, 0, 2], names=["ant", "bee", "cat"])
    load_plugin_file(tmp_path / "scans.py")
    data = registry.build(f"scans:{tmp_path / 'three.npz'}:resolution=48")
    assert isinstance(data, Dataset) and data.identity and list(data.classnames) == ["ant", "bee", "cat"]
    batch = data.read([2, 0])
    assert batch.images.shape == (2, 3, 48, 48) and batch.labels.tolist() == [2, 1]
    assert torch.allclose(batch.images.mean(dim=(2, 3)), torch.from_numpy(files.COLOURS[[2, 1]]) / 255, atol=1e-5)


def test_the_card_of_the_page_loads(tmp_path, registry, monkeypatch):
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    for number, name in enumerate(("House_Sparrow", "Robin", "Wren") * 2):
        files.picture(tmp_path / "birds" / "test" / name / f"{number}.jpg", number % 3)
    (tmp_path / "birds.toml").write_text(block("toml"))
    load_plugin_file(tmp_path / "birds.toml")
    assert list(registry.build("birds").classnames) == ["house sparrow", "robin", "wren"]
    assert registry.build("birds:prompts=latin").classnames[0] == "passer domesticus"
    described = registry.build("birds:prompts=described")
    assert sentences(described.classnames, described.templates)[0] == ["a brown bird at a feeder", "a house sparrow"]
