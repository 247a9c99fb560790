"""A sweep's models are loaded once before anything is computed."""

import os
import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from tiny_clip import write_model

from robustcal import registry
from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.sweep import preflight as module
from robustcal.sweep.plan import Request, Sweep, make_plan
from robustcal.sweep.preflight import leaves, preflight

torch.set_num_threads(1)


class Evil:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_bad_model_anywhere_in_the_sweep_is_found(tmp_path):
    good = f"clip:local-dir:{write_model(tmp_path / 'good', tower='vit')}"
    assert preflight([good, good]) == {}
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    evil = f"checkpoint:{tmp_path}/evil.pt:base={good}"
    found = preflight([good, evil, good])
    assert list(found) == [evil] and "refused" in found[evil]
    (tmp_path / "cut").mkdir()
    for file in (tmp_path / "good").iterdir():
        (tmp_path / "cut" / file.name).write_bytes(file.read_bytes()[: -10 if file.suffix == ".safetensors" else None])
    cut = f"clip:{tmp_path}/cut"
    for spec in (cut, f"ttc:model={cut}", f"temperature:model={cut}:t=2", f"interpolate:a={good}:b={cut}"):
        found = preflight([good, spec])
        assert list(found) == [spec] and "truncated" in found[spec]
    assert not (tmp_path / "ran").exists()


def test_bundled_models_are_not_loaded_again(monkeypatch):
    monkeypatch.setattr(module.registry.models, "build", lambda spec: pytest.fail(f"built {spec}"))
    preflight(["tiny-clip", "tiny-ucat", "temperature:model=tiny-clip", "interpolate:a=tiny-clip:b=tiny-ucat:t=0.5"])


def test_parts_of_models_made_of_models_are_found():
    assert [leaf.partition(":")[0] for leaf in leaves("interpolate:a=tiny-tecoa:b=tiny-clip")] == ["tiny-tecoa", "tiny-clip"]
    assert list(leaves("ttc:model=tiny-ucat:reference=ViT-B-32/openai")) == ["tiny-ucat", "open-clip:ViT-B-32/openai"]


OUT_OF_RANGE = [
    "pgd:steps=0", "pgd:steps=-1", "pgd:step=0", "pgd:restarts=0", "pgd:momentum=-1", "pgd:norm=l7", "pgd:loss=bogus",
    "pgd:return=first", "cw:kappa=-1", "cw:step=nan", "cw:step=inf", "fgsm:step=-1/255", "fgsm:start=there",
    "apgd:targets=0", "apgd:loss=bogus", "square:queries=0", "square:p_init=0", "square:p_init=2", "noise:draw=bell",
    "autoattack:steps=0", "autoattack:queries=-5", "autoattack:norm=l3", "autoattack:norm=l1", "autoattack:strong", "eot:draws=0",
    "a3:budget=0", "a3:rounds=0", "a3:rounds=14", "confidence:goal=sideways", "confidence:steps=0",
    "composite:components=taste", "composite:steps=0",
    "transfer:from=tiny-clip:steps=0", "torchattacks:PGD:steps=0", "torchattacks:PGD:step=-1", "torchattacks:Square:norm=l7",
    "torchattacks:Square:loss=bogus", "torchattacks:NoSuch", "pgd:steps=ten", "pgd:steps=1.5",
]  # fmt: skip


@pytest.mark.parametrize("spec", OUT_OF_RANGE)
def test_a_parameter_out_of_range_is_refused_before_anything_is_written(spec, tmp_path, capsys):
    """Where it is all there is, or where nothing may fail."""
    out = tmp_path / "run"
    where = ["--datasets", "digits", "--limit", "8", "--device", "cpu", "--out", str(out)]
    for attacks in ([spec], ["clean", spec, "--strict"]):
        assert main(["bench", "--models", "tiny-clip", "--attacks", *attacks, *where]) == 2
        error = capsys.readouterr().err
        name, _, rest = spec.partition(":")
        assert error.startswith("robustcal: ") and error.count("\n") == 1 and (name in error or rest in error)
        assert not out.exists() and not re.search(r"'[^' ]*'[^', ;:]*'[^' ]*'", error), error


def test_a_parameter_out_of_range_costs_no_other_attack_its_cells(tmp_path, capsys):
    where = ["--datasets", "digits", "--limit", "8", "--eps", "1/255", "--device", "cpu", "--no-report", "--out", str(tmp_path / "run")]
    assert main(["bench", "--models", "tiny-clip", "--attacks", "clean", "pgd:steps=0", *where]) == 2
    failed, after = capsys.readouterr().err.splitlines()
    assert failed.startswith("robustcal: failed: ") and "steps" in failed and "everything else is computed" in after
    assert {cell.attack for cell in Run.open(tmp_path / "run").cells() if not Run.open(tmp_path / "run").missing(cell)} == {"clean"}


@pytest.mark.parametrize("spec", ["temperature:model=tiny-clip:t=0", "temperature:model=tiny-clip:samples=0", "ttc:model=tiny-clip:steps=0", "ttc:model=tiny-clip:eps=-1",
                                  "interpolate:a=tiny-clip:b=tiny-ucat:t=2"])  # fmt: skip
def test_a_model_setting_out_of_range_is_refused_before_anything_is_written(spec, tmp_path, capsys):
    out = tmp_path / "run"
    where = ["--datasets", "digits", "--limit", "8", "--device", "cpu", "--out", str(out)]
    assert main(["bench", "--models", spec, "--attacks", "clean", *where]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not out.exists()


def plan_of(*attacks, **stand_ins):
    return make_plan(Request((Sweep.of("tiny-clip", attacks, "digits", limit=8),)), **stand_ins)


def test_an_attack_that_the_labels_do_not_suit_is_refused_before_anything_is_written(monkeypatch):
    plan = plan_of("apgd:loss=targeted", "clean")
    assert module.try_attacks(plan) == {}
    source = plan.sources[plan.cells[0].dataset]
    monkeypatch.setattr(source.dataset, "labels", np.eye(10)[source.dataset.labels], raising=False)
    multi = plan_of("autoattack", "clean", open_source=lambda *_: source)
    found = module.try_attacks(multi)
    assert set(found) == {cell.id for cell in multi.cells if cell.attack != "clean"}
    assert all(re.search("'autoattack' on 'digits.*one label per image", reason) for reason in found.values())


def test_the_trial_of_an_attack_asks_no_model(monkeypatch):
    monkeypatch.setattr(module.registry.models, "build", lambda spec: pytest.fail(f"built {spec}"))
    attacks = ["clean", "pgd", "cw", "apgd", "square", "autoattack", "eot", "a3", "confidence", "composite", "fgsm", "noise",
               "radii", "transfer:from=tiny-ucat", "torchattacks:DIFGSM"]  # fmt: skip
    here = {name for name in registry.attacks.names() if name != "torchattacks" or find_spec(name)}
    known = [name for name in attacks if name.partition(":")[0] in here]
    assert module.try_attacks(plan_of(*known)) == {}
