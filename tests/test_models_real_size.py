"""The real-size path: a ViT-B/32 exported by open_clip itself, attacked on a real image pack, on the CPU."""

import os
from pathlib import Path

import pytest
import torch

import robustcal
from robustcal.models import blueprint

torch.set_num_threads(1)
PACK = Path(__file__).parents[2] / "shared" / "data" / "wds" / "cifar10"
NEEDED = 5 << 30


def free_memory():
    """Bytes of memory that can still be had; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ViT-B/32 with random weights, written by open_clip's own exporter in half precision."""
    if free_memory() < NEEDED:
        pytest.skip("needs 5 GiB of free memory")
    from open_clip import create_model, get_model_config
    from open_clip.push_to_hf_hub import save_for_hf

    class NoFiles:
        def save_pretrained(self, folder):
            """open_clip's simple tokenizer has no files of its own."""

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit-b-32")
    clip = create_model("ViT-B-32-quickgelu").half()
    save_for_hf(clip, NoFiles(), get_model_config("ViT-B-32-quickgelu"), folder, safe_serialization=True)
    return folder


def test_vit_b_32_loads_attacks_and_gives_chance_accuracy(folder, tmp_path, monkeypatch):
    model = f"open-clip:local-dir:{folder}"
    built, build = [], blueprint.build
    monkeypatch.setattr(blueprint, "build", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
    dataset = f"webdataset:{PACK}" if PACK.is_dir() else "digits"
    attack = "pgd:steps=2:return=last"
    run = robustcal.bench(
        [model], [attack], [dataset], ["1/255"], limit=10, workers=1, device="cpu", out=tmp_path / "run"
    )
    cells = run.cells[run.cells["attack"] != "worst"]
    assert len(cells) == 1 and (cells["n"] == 10).all()
    # Ten images of ten classes under random weights: more than five right has a chance of about 1 in 7,000.
    assert (cells["accuracy"] <= 0.5).all()
    assert (built[0].size, built[0].tokenizer(["a dog"]).shape) == (224, (1, 77))
    assert sum(p.numel() for p in built[0].clip.parameters()) == 151_277_313
    assert (run.samples["linf"] <= 1 / 255 + 1e-6).all() and run.samples["confidence"].between(0.1, 1).all()
