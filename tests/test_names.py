"""Names of models: a method asks for weights and says which of it are bundled; a toy on natural images is told."""

import pytest
from synthetic_run import make_run

from robustcal.check.inspect import check_models
from robustcal.cli import main
from robustcal.registry import models, objectives
from robustcal.report.evaluate import evaluate
from robustcal.types import UserError

METHODS = sorted(name for name, card in models.cards().items() if card["source"] == "named")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_asks_for_weights_and_names_those_that_are_bundled(name):
    with pytest.raises(UserError, match=f"model '{name}' needs weights: {name}:") as told:
        models.build(name)
    own = [other for other, card in models.cards().items() if card["source"] == "bundled" and card["method"] == name]
    assert all(other in str(told.value) for other in own) and bool(own) != ("none of this method" in str(told.value))
    assert "\n" not in str(told.value)


def test_every_trained_method_but_the_ablations_is_a_name():
    assert set(METHODS) - {"clip"} == {name for name in objectives.names() if "-kl-" not in name}


@pytest.mark.parametrize("name, said", [
    ("prob-kl-forward", "did you mean tiny-prob-kl-forward"), ("dirichlet-kl-forward", "did you mean tiny-dirichlet-kl-forward"),
    ("ucat-scaled", "did you mean tiny-ucat-scaled"), ("bundled", "unknown model"), ("named", "unknown model"),
    ("tiny-ucat:runs/x", "takes no variant"), ("tiny-ucat:base=tiny-clip", "ucat:FILE:base=SPEC"), ("ttc", "needs 'model='"),
])  # fmt: skip
def test_names_that_are_none_are_one_line(name, said, capsys):
    assert main(["check", name]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_nothing_is_listed_twice_and_only_weights_are_checked():
    assert not {"named", "bundled"} & set(models.names()) and set(METHODS) <= set(models.names())
    checked = [row["name"] for row in check_models()]
    assert len(checked) == len(set(checked)) and not set(METHODS) & set(checked) and "tiny-ucat" in checked


def notes(path, names, datasets, kind="toy models"):
    run = make_run(path, models=names, attacks=("clean",), datasets=datasets, n=8)
    return [note for note in evaluate([run], resamples=5).notes if note.startswith(kind)]


def test_a_toy_on_natural_images_is_one_note(tmp_path):
    names = ("tiny-clip", "temperature:model=tiny-ucat:t=2.0", "small-clip", "clip:ViT-B-32/openai")
    (note,) = notes(tmp_path / "a", names, ("cifar10:split=test", "world-shapes:size=20"))
    assert note.startswith("toy models: tiny-clip, temperature on cifar10: ")
    assert not notes(tmp_path / "b", names, ("world-shapes:size=20", "digits:split=test", "world:subset=letters"))
    assert notes(tmp_path / "c", names[:1], ("ood:images=cifar10:classes=world-shapes",))
    assert not notes(tmp_path / "d", names[2:], ("cifar10", "folder:pictures"))


def test_a_temperature_fitted_on_the_measured_set_is_one_note(tmp_path):
    val, train = (f"tiny-imagenet:split={split}:resolution=32:prompts=clip" for split in ("val", "train"))
    own, given = (str(models.spec(f"temperature:model=small-ucat{more}")) for more in ("", ":data=cifar10"))  # as runs hold them
    names = (own, "small-ucat", "temperature:model=small-tecoa:t=2.0")
    (note,) = notes(tmp_path / "a", names, (val, "cifar10:split=test"), "fitted here")
    assert note.startswith("fitted here: temperature on tiny-imagenet: ")
    assert not notes(tmp_path / "b", names, (train, "cifar10:split=test"), "fitted here")
    assert notes(tmp_path / "c", (given,), ("cifar10:split=test",), "fitted here") and not notes(tmp_path / "d", (given,), (val,), "fitted here")
    assert not notes(tmp_path / "f", names[1:], (val,), "fitted here")
