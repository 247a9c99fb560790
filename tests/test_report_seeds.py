"""The layout `seeds`: which models belong together, and their mean and deviation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal import registry
from robustcal.report import markup, tables
from robustcal.report.report import gather
from robustcal.report.seeds import Group, seed_tables
from robustcal.sweep.plan import model_training

FACTS = {"method": "ucat", "objective": "ucat", "steps": 400, "source_data": "world-source"}
WHOLE = FACTS | {"base": "abc", "settings": "def"}


def trained(run, facts):
    """Write how models were trained into the cells of a run."""
    for path in (run.path / "records").glob("*/cell.json"):
        cell = json.loads(path.read_text())
        model = cell["identity"]["model"]
        if model in facts:
            path.write_text(json.dumps(cell | {"training": facts[model]}))
    return gather([run.path], resamples=20)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("seeds") / "run", models=("ucat", "ucat:a", "ucat:b", "tecoa", "clip"), n=60)
    facts = {
        "ucat": FACTS | {"seed": 0}, "ucat:a": WHOLE | {"seed": 1}, "ucat:b": WHOLE | {"seed": 2},
        "tecoa": FACTS | {"method": "tecoa", "objective": "tecoa", "seed": 0},
    }  # fmt: skip
    return trained(run, facts)


def test_mean_and_deviation_of_models_that_differ_in_their_seed(results):
    (found,) = seed_tables(results)
    row = found.numbers()[("pgd", "ucat")]
    each = [
        np.mean([results.get(m, d, "pgd", "1/255").numbers.values["accuracy"] for d in ("digits", "letters")])
        for m in ("ucat", "ucat:a", "ucat:b")
    ]
    entry = row[("Accuracy", "1/255")]
    assert entry.value == pytest.approx(np.mean(each)) and entry.deviation == pytest.approx(np.std(each, ddof=1))
    assert row[("", "Seeds")].value == 3
    alone = found.numbers()[("pgd", "tecoa")]
    assert alone[("", "Seeds")].value == 1 and alone[("Accuracy", "clean")].deviation is None
    assert "over models trained with seed 0, 1 and 2" in found.caption and "no training known: clip" in found.caption
    assert "1/255" in found.caption and "n = 60" in found.caption


def test_the_deviation_is_printed_behind_its_mean_everywhere(results):
    (found,) = seed_tables(results)
    entry = found.numbers()[("pgd", "ucat")][("Accuracy", "1/255")]
    value, spread = f"{100 * entry.value:.2f}", f"{100 * entry.deviation:.2f}"
    assert f"{value} ± {spread}" in tables.text(found)
    assert f"{value} <sub>± {spread}</sub>" in markup.markdown(found)
    assert rf"{value} {{\scriptsize $\pm$ {spread}}}" in markup.latex(found)
    head, *rows = tables.comma_separated(found).splitlines()
    assert "Accuracy 1/255,Accuracy 1/255 sd" in head and {line.count(",") for line in rows} == {head.count(",")}


def test_another_recipe_is_another_training():
    group = Group(dict(WHOLE))
    assert group.takes(FACTS | {"seed": 5}) and group.takes(WHOLE | {"seed": 5})
    for key in WHOLE:
        assert not group.takes(WHOLE | {key: "other", "seed": 5}), key
    assert not group.takes({"seed": 5})


def test_two_models_of_one_seed_are_not_two_seeds(tmp_path):
    run = make_run(tmp_path / "run", models=("ucat", "ucat:a"), datasets=("digits",), attacks=("clean",), n=20)
    (found,) = seed_tables(trained(run, {"ucat": FACTS | {"seed": 0}, "ucat:a": WHOLE | {"seed": 0}}))
    assert len(found.rows) == 1 and found.rows[0].entries[-1].value == 1
    assert "a second model of a seed" in found.caption


def test_a_run_without_trained_models_says_so(tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), datasets=("digits",), n=20)
    (found,) = seed_tables(gather([run.path], resamples=20))
    assert not found.rows and "No model of the run says how it was trained" in found.caption


def test_cards_and_run_folders_say_how_a_model_was_trained(tmp_path):
    spec = registry.models.spec
    bundled = model_training(spec("tiny-ucat"))
    assert bundled["seed"] == 0 and bundled["method"] == "ucat" and "settings" not in bundled
    recipe = {"name": "tiny/ucat", "model": "x", "seed": 3, "lr": 0.1, "objective": bundled["objective"]}
    card = {"base": "tiny-clip", "recipe": recipe, **bundled, "seed": 3}
    found = {}
    for name, change in (("one", {}), ("two", {"seed": 4, "model": "y"}), ("three", {"lr": 0.2})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"")
        seed = change.get("seed", 3)
        (folder / "card.json").write_text(json.dumps(card | {"seed": seed, "recipe": recipe | change}))
        found[name] = model_training(spec(f"ucat:{folder}"))
    assert found["one"] | {"seed": 4} == found["two"]
    assert found["one"]["settings"] != found["three"]["settings"]
    assert Group(dict(found["one"])).takes(bundled)
    assert model_training(spec("clip:ViT-B-32/openai")) is None


def test_pre_trainings_of_two_seeds_are_one_training(tmp_path):
    """A pre-training is a whole model with its card beside it; somebody else's card.json says nothing."""
    spec, cards = registry.models.spec, {}
    small = registry.models.cards()["small-clip"]
    facts = {key: small[key] for key in ("method", "steps", "source_data")}
    for name, seed in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "open_clip_config.json").write_text("{}")
        (folder / "open_clip_model.safetensors").write_bytes(b"")
        (folder / "card.json").write_text(json.dumps({**facts, "seed": seed, "recipe": {"name": "small/clip", "seed": seed, "lr": 0.1}}))
        cards[name] = model_training(spec(f"clip:{folder}"))
    assert cards["one"] | {"seed": 2} == cards["two"] and Group(dict(cards["one"])).takes(model_training(spec("small-clip")))
    for text in ("[]", "{", '{"seed": 3}', '{"seed": 3, "recipe": "x"}'):
        (tmp_path / "one" / "card.json").write_text(text)
        assert model_training(spec(f"clip:{tmp_path / 'one'}")) is None


def test_a_row_of_several_trainings_of_a_method_is_called_after_its_lowest_seed(tmp_path):
    run = make_run(tmp_path / "run", models=("ucat:b", "ucat:a", "ucat:c"), datasets=("digits",), attacks=("clean",), n=20)
    other = WHOLE | {"settings": "other", "seed": 0}
    (found,) = seed_tables(trained(run, {"ucat:b": WHOLE | {"seed": 2}, "ucat:a": WHOLE | {"seed": 1}, "ucat:c": other}))
    assert [row.labels[-1] for row in found.rows] == ["ucat:a", "ucat:c"]
