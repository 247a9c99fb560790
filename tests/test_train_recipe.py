"""Recipes: each task has settings of its own; a wrong one is named, and so is the task it belongs to."""

from __future__ import annotations

from dataclasses import fields

import pytest

from robustcal.train import recipe
from robustcal.types import UserError

LEAST = {"finetune": {}, "pretrain": {"sources": ["world-source"]}, "zoo": {"recipes": ["tiny/clip"]}}
NAMES = {task: {field.name for field in fields(kind)} - {"name"} for task, kind in recipe.TASKS.items()}


@pytest.mark.parametrize("task", LEAST)
def test_a_setting_of_another_task_is_refused_with_the_task_it_belongs_to(task):
    foreign = set().union(*NAMES.values()) - NAMES[task]
    assert foreign
    for key in foreign:
        owners = " and ".join(other for other, names in NAMES.items() if key in names)
        with pytest.raises(UserError, match=f"no setting '{key}'; it belongs to {owners}, and this recipe's task is {task}$"):
            recipe.complete("mine", {"task": task, **LEAST[task], key: 1})


@pytest.mark.parametrize("task", LEAST)
def test_a_misspelt_setting_names_the_nearest(task):
    for key in NAMES[task]:
        with pytest.raises(UserError, match=f"no setting '{key}x'; did you mean '.*'"):
            recipe.complete("mine", {"task": task, **LEAST[task], f"{key}x": 1})


def test_every_setting_of_a_task_is_read_by_it():
    """A field that no code of the trainer mentions would be a setting that does nothing."""
    folder = recipe.ROOT / "train"
    code = "\n".join(path.read_text() for path in folder.glob("*.py") if path.name != "recipe.py")
    unread = [key for names in NAMES.values() for key in names if f".{key}" not in code]
    assert unread == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "distil"}, "task 'distil' is not one of finetune, pretrain, zoo"), ({"task": "pretrain"}, "lists no sources"),
        ({"task": "zoo", "recipes": []}, "lists no recipes"), ({"task": "pretrain", "sources": "world"}, "not a list"),
        ({**LEAST["pretrain"], "task": "pretrain", "shares": [0.5, 0.5]}, "2 shares for 1 sources"),
        ({**LEAST["pretrain"], "task": "pretrain", "shares": [0]}, "must be above 0"),
        ({**LEAST["pretrain"], "task": "pretrain", "crop_scale": 0}, "above 0 and at most 1"),
        ({**LEAST["pretrain"], "task": "pretrain", "flip": 1}, "flip=1 is not true or false"),
        ({**LEAST["pretrain"], "task": "pretrain", "contrastive": 0, "classes": 0}, "no loss to train on"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(settings, message):
    with pytest.raises(UserError, match=message) as error:
        recipe.complete("mine", settings)
    assert "\n" not in str(error.value)


def test_the_digest_follows_what_decides_the_weights_and_nothing_else():
    for task, least in LEAST.items():
        if task == "zoo":
            continue
        base = recipe.complete("mine", {"task": task, **least})
        others = {"title": "other", "save_every": 7, "log_every": 7, "eval_every": 7, "workers": 7, "eval_steps": 7}
        assert recipe.complete("mine", {"task": task, **least, **others}).digest() == base.digest()
        for key, value in {"lr": 0.5, "steps": 7, "seed": 7, "batch": 7}.items():
            assert recipe.complete("mine", {"task": task, **least, key: value}).digest() != base.digest()
    assert recipe.complete("mine", {}).dictionary()["task"] == "finetune"
