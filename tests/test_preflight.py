"""A sweep's models are loaded once before anything is computed."""

import os

import pytest
import torch
from tiny_clip import write_model

from robustcal.engine import preflight as module
from robustcal.engine.preflight import leaves, preflight
from robustcal.types import UserError

torch.set_num_threads(1)


class Evil:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_bad_model_anywhere_in_the_sweep_is_found(tmp_path):
    good = f"clip:local-dir:{write_model(tmp_path / 'good', tower='vit')}"
    preflight([good, good])
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="refused"):
        preflight([good, f"checkpoint:{tmp_path}/evil.pt:base={good}"])
    (tmp_path / "cut").mkdir()
    for file in (tmp_path / "good").iterdir():
        (tmp_path / "cut" / file.name).write_bytes(file.read_bytes()[: -10 if file.suffix == ".safetensors" else None])
    cut = f"clip:{tmp_path}/cut"
    for spec in (cut, f"ttc:model={cut}", f"temperature:model={cut}:t=2", f"interpolate:a={good}:b={cut}"):
        with pytest.raises(UserError, match="truncated"):
            preflight([good, spec])
    assert not (tmp_path / "ran").exists()


def test_bundled_models_are_not_loaded_again(monkeypatch):
    monkeypatch.setattr(module.registry.models, "build", lambda spec: pytest.fail(f"built {spec}"))
    preflight(["clip", "ucat", "temperature:model=clip", "interpolate:a=clip:b=ucat:t=0.5"])


def test_parts_of_models_made_of_models_are_found():
    assert [leaf.partition(":")[0] for leaf in leaves("interpolate:a=tecoa:b=ttc")] == ["tecoa", "clip"]
    assert list(leaves("ttc:model=ucat:reference=ViT-B-32/openai")) == ["ucat", "open-clip:ViT-B-32/openai"]
