"""The trainer: schedule, data order, objectives on both towers, divergence, resume, processes, bundled weights."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robustcal.models.blueprint import make_module
from robustcal.models.folder import save_local_dir
from robustcal.models.tiny_tokenizer import MERGES, tiny_tokenizer
from robustcal.noise import Noise
from robustcal.registry import datasets, models, objectives, register
from robustcal.train import heldout, recipe, schedule
from robustcal.train import state as trainstate
from robustcal.train.finetune import FineTuning
from robustcal.train.inner import InnerAttack
from robustcal.train.train import scaled, train
from robustcal.train.zoo import clean_accuracy
from robustcal.types import UserError

torch.set_num_threads(1)
TOWERS = {
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
}
SMALL = {
    "dataset": "world-source:split=train:size=64", "batch": 8, "held_out": 8, "save_every": 3, "log_every": 1, "warmup": 2,
    "eval_steps": 2, "eps": "2/255", "attack_step": "2/255", "device": "cpu", "workers": 0,
}  # fmt: skip


OBJECTIVES = [
    "tecoa", "pmg-aft", "fare", "tga-zsr", "comp-tga", "ucat", "agft", "prob-kl-forward", "prob-kl-reverse",
    "dirichlet-kl-forward",
]  # fmt: skip


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> dict[str, Path]:
    """An untrained CLIP of each kind as an open_clip folder."""
    folders = {}
    for name, vision in TOWERS.items():
        torch.manual_seed(0)
        text = {"context_length": 16, "vocab_size": tiny_tokenizer().vocab_size, "width": 16, "heads": 2, "layers": 1}
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        folders[name] = tmp_path_factory.mktemp(name)
        save_local_dir(make_module(config, name), config, folders[name], vocabulary=MERGES)
    return folders


def losses(run: Path) -> list[float]:
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_learning_rate_is_the_published_formula():
    total, warmup, peak = 3910, 1000, 1e-4
    for step in (0, 1, 999):
        expected = peak * (step + 1) / warmup
        assert schedule.learning_rate(step, total, warmup, peak) == pytest.approx(expected, rel=1e-15)
    for step in (1000, 2000, 3909):
        expected = 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        assert schedule.learning_rate(step, total, warmup, peak) == pytest.approx(expected, rel=1e-15)
    assert schedule.learning_rate(0, 10, 0, 1.0) == 1.0


def test_an_epoch_visits_every_sample_once_and_keeps_the_last_small_batch():
    assert schedule.steps_per_epoch(100_000, 256) == 391 and schedule.steps_per_epoch(100_000, 128) == 782
    visited = np.concatenate([schedule.batch_indices(step, 21, 8, seed=3) for step in range(3)])
    assert sorted(visited) == list(range(21))
    again = np.concatenate([schedule.batch_indices(step, 21, 8, seed=3) for step in range(3, 6)])
    assert sorted(again) == list(range(21)) and list(again) != list(visited)
    # one sample cannot feed two parts: it is left out rather than starving a process
    assert schedule.steps_per_epoch(17, 8, parts=2) == 2


def test_the_held_out_split_is_disjoint_and_balanced():
    labels = np.repeat(np.arange(10), 30)
    train_rows, held_out = schedule.held_out_split(labels, 40, seed=1)
    assert not set(train_rows) & set(held_out) and len(train_rows) + len(held_out) == 300
    assert np.bincount(labels[held_out]).tolist() == [4] * 10


def test_every_bundled_recipe_is_valid_and_names_a_known_objective():
    assert {"tecoa", "pmg-aft", "fare", "tga-zsr", "comp-tga", "ucat", "agft", "tiny/clip"} <= set(recipe.names())
    for name in recipe.names():
        settings = recipe.load(name)
        assert settings.title
        if isinstance(settings, recipe.FineTune):
            objectives.arguments(objectives.spec(scaled(settings.objective, 50.0)))
        if isinstance(settings, recipe.Zoo):
            assert set(settings.results_only) < set(settings.recipes) <= set(recipe.names())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1.0}, "no setting 'learning_rate'"), ({"batchsize": 1}, "did you mean 'batch'"),
        ({"optimizer": "adam"}, "sgd, adamw"), ({"batch": 0}, "batch is 0"), ({"eps": "-1/255"}, "negative"),
        ({"eps": "9"}, r"eps is 9, larger .* write 9/255"), ({"attack_step": 2}, r"attack_step is 2, larger .* write 2/255"),
        ({"eps": "300/255"}, r"range \[0, 1\]$"), ({"lr": "fast"}, "lr=fast"), ({"ema": 1.0}, "ema"), ({"steps": 1.5}, "steps=1.5"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        recipe.load("tecoa", **settings)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="ucat"):
        recipe.load("ucta")


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_step_of_every_objective(name, tower, towers):
    source = datasets.build("world-source:split=train:size=24")
    base = models.build(f"open-clip:local-dir:{towers[tower]}")
    classifier = base.classifier(source.classnames, source.templates)
    plugin, params = objectives.arguments(objectives.spec(name))
    if "negative_template" in plugin.meta:
        classifier.negative_head = base.text_head(source.classnames, [plugin.meta["negative_template"]])
    settings = recipe.load(name, **{k: v for k, v in SMALL.items() if k != "device"}, steps=1)
    task = FineTuning(settings, classifier, source, plugin, params)
    before = {key: value.clone() for key, value in task.trained.state_dict().items()}
    clean, adversarial, labels = task.inputs(task.read(0, 0, 1), 0)
    assert all(p.grad is None for p in task.module.parameters())  # the attack touched no parameter
    assert 0 < (adversarial - clean).abs().max() <= 2 / 255 + 1e-6
    parts = task.module(clean, adversarial, labels)
    assert all(part.shape == labels.shape for part in parts.values())
    loss = torch.stack(list(parts.values())).sum()
    loss.backward()
    gradients = [p.grad for p in task.trained.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and any(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(p.grad is None for p in task.teacher.parameters())
    for key, value in task.trained.state_dict().items():  # nothing but an optimiser changes the tower
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("returned, said", [
    (None, "returned None"), ({}, r"returned \{\}"), (torch.ones(8), "returned a Tensor"), (1.0, "returned a float"),
    ({"ce": 1.0}, "returned a float under the name 'ce'"), ({1: torch.ones(8)}, "returned a Tensor under the name 1"),
    ({"ce": torch.ones(8), "mean": torch.ones(())}, r"returned 'mean' of shape \(\) for 8 images"),
    ({"ce": torch.ones(8, 1)}, r"returned 'ce' of shape \(8, 1\) for 8 images"),
])  # fmt: skip
def test_an_objective_returns_one_number_per_image(returned, said, towers, tmp_path):
    register.objective(lambda student, teacher, clean, adversarial, labels: returned, name="odd")
    try:
        with pytest.raises(UserError, match=f"^objective 'odd' {said}; .* one number per image .reduction=\"none\"") as error:
            train("tecoa", objective="odd", model=f"open-clip:local-dir:{towers['vit']}", steps=2, out=tmp_path, **SMALL)
    finally:
        objectives.plugins.pop("odd")
    assert "\n" not in str(error.value) and trainstate.checkpoints(tmp_path) == []


def test_inner_attack_equals_a_plain_loop():
    weight = torch.randn(3 * 4 * 4, 5, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, ids = torch.arange(6) % 5, [f"s{i}" for i in range(6)]
    cross_entropy = torch.nn.functional.cross_entropy
    loss = lambda x: cross_entropy(x.flatten(1).tanh() @ weight, labels, reduction="none")  # noqa: E731
    found = InnerAttack(0.03, 0.02, 3)(loss, images, Noise(0, ids))
    plain = (images + Noise(0, ids).uniform((3, 4, 4), -0.03, 0.03)).clamp(0, 1)
    for _ in range(3):
        plain = plain.detach().requires_grad_()
        loss(plain).sum().backward()
        plain = plain.detach() + 0.02 * plain.grad.sign()
        plain = (images + (plain - images).clamp(-0.03, 0.03)).clamp(0, 1)
    assert torch.equal(found, plain)


def test_a_run_is_a_model_and_its_card_says_how_it_came_to_be(towers, tmp_path):
    settings = {**SMALL, "model": f"open-clip:local-dir:{towers['resnet']}", "steps": 4, "lr": 1e-2}
    run = train("tecoa", out=tmp_path / "run", **settings)
    card = json.loads((run / "card.json").read_text())
    assert card["steps"] == 4 and card["recipe"]["objective"] == "tecoa" and "robust_accuracy" in card["held_out"]
    assert card["sha256"] == trainstate.sha256(run / "model.safetensors")
    base, tuned = models.build(f"open-clip:local-dir:{towers['resnet']}"), models.build(f"checkpoint:{run}")
    saved = load_file(run / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in tuned.clip.visual.state_dict().items())
    frozen = [key for key in saved if "running" in key]
    assert frozen and all(torch.equal(saved[key], base.clip.visual.state_dict()[key]) for key in frozen)
    assert not torch.equal(saved["conv1.weight"], base.clip.visual.state_dict()["conv1.weight"])
    assert (run / "training.png").stat().st_size > 1000 and len(losses(run)) == 4
    stamp = (run / "model.safetensors").stat().st_mtime_ns
    train("tecoa", out=run, **settings)
    assert (run / "model.safetensors").stat().st_mtime_ns == stamp  # a finished run is left as it is
    with pytest.raises(UserError, match="other settings .*lr"):
        train("tecoa", out=run, **{**settings, "lr": 2e-2})


RUN = """
import os, signal, sys, json, torch
torch.set_num_threads(1)
from robustcal.train.train import train
from robustcal.train.zoo import clean_accuracy
name, out, kill, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
def progress(event):
    if event["kind"] == "step" and event["step"] == kill:
        os.kill(os.getpid(), signal.SIGKILL)
train(name, out=out, progress=progress, **settings)
"""


def same_weights(one: Path, two: Path) -> None:
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert len(files) >= 4  # the result, and a checkpoint's weights, optimiser state and average
    for file in files:
        ours, theirs = load_file(one / file), load_file(two / file)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), file


EVERYTHING = {"steps": 8, "optimizer": "adamw", "lr": 1e-3, "ema": 0.9, "accumulate": 2}


def test_killed_and_resumed_fine_tuning_equals_uninterrupted_bit_for_bit(towers, tmp_path):
    settings = {**SMALL, **EVERYTHING, "model": f"open-clip:local-dir:{towers['resnet']}"}
    whole = train("ucat", out=tmp_path / "whole", **settings)
    command = [sys.executable, "-c", RUN, "ucat", str(tmp_path / "killed"), "5", json.dumps(settings)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in trainstate.checkpoints(tmp_path / "killed")] == ["step-00000003"]
    resumed = train("ucat", out=tmp_path / "killed", **settings)
    same_weights(whole, resumed)
    assert losses(whole) == losses(resumed)


def test_interrupted_and_resumed_pretraining_equals_uninterrupted_bit_for_bit(tmp_path):
    small = {"batch": 16, "width": 8, "embed": 16, "text_width": 16, "text_layers": 1, "calibrate": 50}
    settings = {**SMALL, **EVERYTHING, **small}

    def interrupt(event):
        if event["kind"] == "step" and event["step"] == 5:
            raise KeyboardInterrupt

    whole = train("tiny/clip", out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train("tiny/clip", out=tmp_path / "stopped", progress=interrupt, **settings)
    resumed = train("tiny/clip", out=tmp_path / "stopped", **settings)
    same_weights(whole, resumed)
    assert losses(whole) == losses(resumed)
    card = json.loads((whole / "card.json").read_text())
    assert card["method"] == "clip" and card["logit_scale"]["fitted"] != card["logit_scale"]["learned"]


def test_a_checkpoint_half_written_is_not_one(tmp_path):
    for step in (1, 2, 3):
        trainstate.keep_checkpoint(trainstate.stage_checkpoint(tmp_path, step, {"model": {"w": torch.ones(2) * step}}, {}))
    trainstate.stage_checkpoint(tmp_path, 4, {"model": {"w": torch.ones(2)}}, {})  # not known to be good
    (tmp_path / "checkpoints" / "step-00000005").mkdir()  # no card: not whole
    assert [path.name for path in trainstate.checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    parts, card = trainstate.load_checkpoint(trainstate.checkpoints(tmp_path)[-1])
    assert card["step"] == 3 and torch.equal(parts["model"]["w"], torch.full((2,), 3.0))


def test_two_processes_give_the_loss_of_one(towers, tmp_path):
    settings = {**SMALL, "model": f"open-clip:local-dir:{towers['resnet']}", "steps": 3, "lr": 1e-2}
    one = train("pmg-aft", out=tmp_path / "one", **settings)
    halves = train("pmg-aft", out=tmp_path / "halves", accumulate=2, **settings)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*launch, str(script), "pmg-aft", str(tmp_path / "two"), "-1", json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-5)
    assert losses(halves) == pytest.approx(losses(one), rel=1e-5)
    ours, theirs = load_file(one / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")
    assert max((ours[key].float() - theirs[key].float()).abs().max() for key in ours) < 1e-4


def test_a_diverged_loss_stops_and_names_the_last_good_checkpoint(towers, tmp_path):
    calls = []

    @register.objective(name="turns-nan")
    def turns_nan(student, teacher, clean, adversarial, labels):
        calls.append(1)
        loss = student(adversarial).logsumexp(-1)
        return {"loss": loss * (math.nan if len(calls) > 4 else 1.0)}

    with pytest.raises(UserError, match="diverged at step 5.*step-00000003"):
        settings = {**SMALL, "model": f"open-clip:local-dir:{towers['vit']}", "steps": 6}
        train("tecoa", objective="turns-nan", out=tmp_path, **settings)
    parts, card = trainstate.load_checkpoint(trainstate.checkpoints(tmp_path)[-1])
    assert card["step"] == 3 and all(torch.isfinite(value).all() for value in parts["model"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_pixel_statistics_of_the_base_are_those_of_the_run(towers, tmp_path):
    base = f"open-clip:local-dir:{towers['vit']}"
    with pytest.raises(UserError, match="normalise=zero.*openai, imagenet"):
        models.build(f"{base}:normalise=zero")
    settings = {**SMALL, "objective": "pmg-aft:released=true:batch=8", "steps": 1}
    clip, other = (
        models.build(f"checkpoint:{train('pmg-aft', model=base + end, out=tmp_path / name, **settings)}")
        for name, end in (("clip", ""), ("imagenet", ":normalise=imagenet"))
    )
    assert clip.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073)) and other.mean == (0.485, 0.456, 0.406)
    assert other.std == (0.229, 0.224, 0.225) and clip.fingerprint != other.fingerprint


def test_an_exploding_loss_stops(towers, tmp_path):
    settings = {**SMALL, "lr": 1e3, "warmup": 0, "explode": 10.0}
    with pytest.raises(UserError, match="diverged at step"):
        train("fare", model=f"open-clip:local-dir:{towers['vit']}", steps=20, out=tmp_path, **settings)


def test_a_damaged_checkpoint_is_named(towers, tmp_path):
    settings = {**SMALL, "model": f"open-clip:local-dir:{towers['vit']}", "steps": 3}
    run = train("tecoa", out=tmp_path, **settings)
    (run / "card.json").unlink()
    file = trainstate.checkpoints(run)[-1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        train("tecoa", out=tmp_path, **settings)


def test_optimizer_state_survives_a_round_trip():
    parameter = torch.nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    for make in (lambda: torch.optim.AdamW([parameter]), lambda: torch.optim.SGD([parameter], 0.1, momentum=0.9)):
        one, two = make(), make()
        parameter.grad = torch.ones_like(parameter)
        one.step()
        trainstate.load_optimizer(two, trainstate.optimizer_tensors(one))
        for key, value in one.state[parameter].items():
            restored = two.state[parameter][key]
            assert torch.equal(value, restored) and value.stride() == restored.stride()


def test_logit_scale_fit_finds_the_scale_that_made_the_labels():
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(20_000, 10, generator=generator) * 0.5
    labels = torch.multinomial((12 * cosines).softmax(-1), 1, generator=generator).squeeze(1)
    halves = [(cosines[:5000], labels[:5000]), (cosines[5000:], labels[5000:])]
    assert heldout.fit_scale([(cosines, labels)]) == pytest.approx(12, rel=0.05)
    assert heldout.fit_scale(halves) == heldout.fit_scale([(cosines, labels)])  # sets count by their samples


def test_calibration_gap_of_a_hand_made_case():
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.5])
    correct = torch.tensor([True, True, False, False])
    assert heldout.calibration_gap(confidence, correct) == pytest.approx((abs(2.7 - 2) + 0.5) / 4, abs=1e-6)


@pytest.mark.parametrize("tower", TOWERS)
def test_bf16_towers_keep_logits_and_weights_in_fp32(tower, towers):
    source = datasets.build("world-source:split=train:size=24")
    classifier = models.build(f"open-clip:local-dir:{towers[tower]}").classifier(source.classnames, source.templates)
    plugin, params = objectives.arguments(objectives.spec("tga-zsr"))
    settings = recipe.load("tecoa", **{k: v for k, v in SMALL.items() if k != "device"}, steps=1)
    images = source.read([0, 1, 2]).images
    exact = classifier(images)
    task = FineTuning(settings, classifier, source, plugin, params, compute=torch.bfloat16)
    rounded = task.student(images)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    torch.stack(list(task.module(*task.inputs(task.read(0, 0, 1), 0)).values())).sum().backward()
    gradients = [p.grad for p in task.trained.parameters() if p.grad is not None]
    assert gradients and all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients)


BUNDLED = [name for name, card in models.cards().items() if card.get("source") == "bundled"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_file_card_and_accuracy_agree(name):
    card = models.cards()[name]
    zoo = card.get("folder", "tiny")
    file = Path(card["path"]).parent.parent / "weights" / zoo / card["weights"]
    assert trainstate.sha256(file) == card["sha256"] and card["command"].endswith(f"--seed {card['seed']}")
    assert all(value.dtype in (torch.float16, torch.int64) for value in load_file(file).values())
    assert set(recipe.load(f"{zoo}/zoo").claims) == set(card["claims"])
    for dataset, claim in card["claims"].items():
        if not datasets.spec(dataset).name.startswith("world"):
            continue  # photographs are fetched by the user, never bundled
        # the last digits of a convolution differ between machines; one sample in 500 is 0.002
        assert clean_accuracy(name, dataset) == pytest.approx(claim["clean_accuracy"], abs=0.0041)


def test_the_bundled_models_fit_the_package():
    """Three megabytes each, and 60 for everything that is installed."""
    package = Path(models.cards()["tiny-clip"]["path"]).parents[2]
    sizes = {path: path.stat().st_size for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    weights = [size for path, size in sizes.items() if path.suffix == ".safetensors"]
    assert len(weights) > 15 and max(weights) < 3.2e6 and sum(sizes.values()) < 60e6


def test_the_command_names_the_run_as_a_model_that_exists(tmp_path):
    """A method without a model of its name, such as an ablation, is used as a checkpoint; a zoo is no model."""
    from robustcal.cli.commands import model_name

    for method, name in (("ucat", "ucat"), ("agft", "agft"), ("clip", "clip"), ("prob-kl-forward", "checkpoint")):
        (tmp_path / "card.json").write_text(f'{{"method": "{method}"}}')
        assert model_name(tmp_path) == name and name in models.names()
    assert model_name(tmp_path / "nowhere") is None
