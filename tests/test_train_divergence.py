"""A run that goes wrong says at which step, how, and what is left; weights that went wrong are never a checkpoint."""

import math

import pytest
import torch

from robustcal.registry import objectives, register
from robustcal.train import state as trainstate
from robustcal.train.divergence import Diverged, check_finite, check_loss
from robustcal.train.train import train
from robustcal.types import UserError

torch.set_num_threads(1)
SMALL = {
    "model": "tiny-clip", "dataset": "world-source:split=train:size=64", "batch": 8, "held_out": 8, "save_every": 1, "log_every": 1, "warmup": 0,
    "eval_steps": 2, "eps": "2/255", "attack_step": "2/255", "device": "cpu", "workers": 0, "precision": "fp32",
}  # fmt: skip


def left(run):
    """What lies in the folder of checkpoints, half-written ones included."""
    return sorted(path.name for path in (run / "checkpoints").glob("*")) if (run / "checkpoints").is_dir() else []


@pytest.mark.parametrize("name, lr", [("tecoa", 1e6), ("tecoa", 1e30), ("fare", 1e3)])
def test_weights_that_went_wrong_at_once_leave_no_checkpoint(name, lr, tmp_path):
    with pytest.raises(UserError) as error:
        train(name, lr=lr, steps=6, out=tmp_path, **SMALL)
    line = str(error.value)
    assert f"'{name}' diverged at step 2 (the gradient of the inner attack" in line and "no good checkpoint" in line
    assert "lower lr" in line and "--out" in line and "\n" not in line
    assert left(tmp_path) == []


def test_the_last_step_too_must_leave_good_weights(tmp_path):
    with pytest.raises(UserError, match="diverged at step 1 .*no good checkpoint"):
        train("tecoa", lr=1e6, steps=1, out=tmp_path, **{**SMALL, "held_out": 0})
    assert left(tmp_path) == [] and not (tmp_path / "model.safetensors").exists() and not (tmp_path / "card.json").exists()


def test_the_newest_checkpoint_is_the_last_whose_own_loss_was_good(tmp_path):
    """Step 4 has a good loss and a ruinous gradient: the checkpoint after it is dropped, also where every step is saved."""
    calls = []

    @register.objective(name="ruins-step-4")
    def ruins(student, teacher, clean, adversarial, labels):
        calls.append(1)
        loss = torch.nn.functional.cross_entropy(student(adversarial), labels, reduction="none")
        return {"loss": loss + (1e12 if len(calls) == 4 else 0) * (loss - loss.detach())}

    settings = {**SMALL, "objective": "ruins-step-4", "lr": 1e-3, "out": tmp_path}
    try:
        with pytest.raises(UserError, match="diverged at step 5 .*step-00000003'"):
            train("tecoa", steps=8, **settings)
        assert left(tmp_path) == ["step-00000002", "step-00000003"]
        resumed = train("tecoa", steps=8, **settings)  # its gradients are good from here on
    finally:
        objectives.plugins.pop("ruins-step-4")
    parts, card = trainstate.load_checkpoint(trainstate.checkpoints(resumed)[-1])
    assert card["step"] == 8 and all(tensor.isfinite().all() for tensor in parts["model"].values())


def test_an_evaluation_that_meets_bad_weights_says_the_same(tmp_path):
    with pytest.raises(UserError, match="diverged at step 2 .*no good checkpoint"):
        train("tecoa", lr=1e30, steps=6, eval_every=1, attack_steps=0, out=tmp_path, **SMALL)


def test_what_counts_as_diverged():
    first = []
    for loss in (2.0, -3.0):
        check_loss(loss, 1.0, first, explode=10.0)
    assert first == [2.0, -3.0]
    check_loss(30.0, 1.0, [*first], explode=10.0)
    for loss, norm in ((math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf), (30.1, 1.0), (-30.1, 1.0)):
        with pytest.raises(Diverged):
            check_loss(loss, norm, first, explode=10.0)
    for _ in range(20):
        check_loss(1.0, 1.0, first, explode=10.0)
    assert len(first) == 10


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_checkpoint_holds_finite_numbers_only(value):
    """A bias of minus infinity before a ReLU gives a finite loss."""
    good = {"weight": torch.ones(2), "steps": torch.tensor(3)}
    check_finite({"model": good})
    with pytest.raises(Diverged, match="optimizer 'bias'"):
        check_finite({"model": good, "optimizer": {"bias": torch.tensor([1.0, value])}})
