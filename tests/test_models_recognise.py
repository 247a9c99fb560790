"""A file that does not say what it is: recognised from its shapes, or from its path, in the first error."""

import pytest
import torch
from tiny_clip import write_model

from robustcal import registry
from robustcal.clip import weights
from robustcal.models import open_clip
from robustcal.models.recognise import architecture
from robustcal.types import UserError

torch.set_num_threads(1)


def shapes(arch):
    """The state of an architecture, without memory."""
    from open_clip import get_model_config
    from open_clip.model import CLIP, CustomTextCLIP

    config = get_model_config(arch)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    with torch.device("meta"):
        return kind(**{key: value for key, value in config.items() if key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}).state_dict()


@pytest.mark.parametrize("arch", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-B-32-quickgelu", "RN50", "RN101", "RN50x4"])
def test_shapes_name_an_architecture_with_the_same_shapes(arch):
    state = shapes(arch)
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    found = architecture(state, whole=True)
    assert found in open_clip.architectures()
    assert {key: value.shape for key, value in shapes(found).items()} == {key: value.shape for key, value in state.items()}
    alone = architecture(tower, whole=False)
    theirs = {key: value.shape for key, value in shapes(alone).items() if key.startswith("visual.")}
    assert theirs == {"visual." + key: value.shape for key, value in tower.items()}


def test_the_first_error_of_a_whole_model_says_what_to_add(tmp_path):
    base = write_model(tmp_path / "base", tower="vit")
    state = weights.load_state_dict(base / "open_clip_model.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "epoch_1.pt")
    with pytest.raises(UserError, match="a whole CLIP model: add base=ARCHITECTURE:activation=quickgelu .* or activation=gelu"):
        registry.models.build(f"checkpoint:{tmp_path}/epoch_1.pt")
    with pytest.raises(UserError, match="holds .*tower.* only: say what it was fine-tuned from with base=SPEC"):
        visual = {key: value for key, value in state.items() if key.startswith("visual.")}
        weights.save_state_dict(visual, tmp_path / "tower.safetensors")
        registry.models.build(f"checkpoint:{tmp_path}/tower.safetensors")


@pytest.mark.parametrize(("family", "name", "said"), [
    ("models", "ours.pt", "checkpoint:{path}:base="), ("models", "run/", "clip:{path}"), ("datasets", "pictures/", "folder:{path}"),
    ("datasets", "shard.tar", "webdataset:{path}"), ("datasets", "val.json", "coco:{path}:images="), ("attacks", "mine.py", "--plugin {path}"),
])
def test_an_unknown_name_that_is_a_path_says_what_it_is(tmp_path, monkeypatch, family, name, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name.rstrip("/")
    path.mkdir() if name.endswith("/") else path.touch()
    for text in (path.name, str(path)):
        with pytest.raises(UserError) as error:
            getattr(registry, family).spec(text)
        assert said.format(path=text) in str(error.value) and "did you mean" not in str(error.value)
    with pytest.raises(UserError, match="unknown .* 'absent'; "):
        getattr(registry, family).spec("absent")


@pytest.mark.parametrize(("family", "name", "said"), [
    ("models", "./absent", "no such file"), ("models", "absent.pt", "no such file"), ("datasets", "/absent/val.json", "no such file"),
    ("models", "digits", "it is one of the datasets; see: robustcal ls datasets"), ("datasets", "pgd", "it is one of the attacks"),
    ("models", "dirichlet-kl-forward", "did you mean tiny-dirichlet-kl-forward"),
])  # fmt: skip
def test_an_unknown_name_that_is_no_path_here_or_of_another_family(family, name, said):
    with pytest.raises(UserError) as error:
        getattr(registry, family).spec(name)
    assert said in str(error.value) and str(error.value).count("\n") == 0


def test_a_finished_sweep_is_no_model(tmp_path):
    (tmp_path / "run.json").touch()
    with pytest.raises(UserError, match="a finished sweep is read by robustcal report"):
        registry.models.spec(str(tmp_path))
