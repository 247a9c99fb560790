"""Small checkpoints with one random oddity each: the logits of the library that made them, or one line; nothing else."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_clip import config, write_model

from robustcal.registry import models
from robustcal.types import UserError

torch.set_num_threads(1)
CLASSES = ["cat", "red dog"]
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "vit", tower="vit")


@pytest.fixture(scope="module")
def tuned():
    """A whole model of the same architecture with other weights, and its logits by its own modules."""
    from open_clip.model import CLIP

    torch.manual_seed(7)
    return CLIP(**config("vit")).eval()


def drop(state, key):
    return {name: value for name, value in state.items() if name != key}


#: What is written, given the tensors and one of their names; and what comes of it: True loads, a text is said.
ODDITIES = {
    "plain": (lambda s, k: s, True),
    "state_dict": (lambda s, k: {"state_dict": s, "epoch": 3, "args": {"lr": 0.1}}, True),
    "module.": (lambda s, k: {"state_dict": {"module." + n: v for n, v in s.items()}}, True),
    "compiled": (lambda s, k: {"model": {"_orig_mod." + n: v for n, v in s.items()}}, True),
    "one entry of another name": (lambda s, k: {"net": s, "step": 1}, True),
    "nested": (lambda s, k: {"checkpoint": {"weights": s}, "step": 1}, True),
    "float64": (lambda s, k: s | {k: s[k].double()}, True),
    "vector scale": (lambda s, k: s | {"logit_scale": s["logit_scale"].reshape(1)}, True),
    "mask": (lambda s, k: s | {"attn_mask": torch.full((16, 16), -torch.inf).triu(1)}, True),
    "indices": (lambda s, k: s | {"visual.position_ids": torch.arange(17)[None]}, True),
    "openai facts": (lambda s, k: s | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(600)}, True),
    "optimizer": (lambda s, k: {"state_dict": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, True),
    "one tensor missing": (lambda s, k: drop(s, k), "missing|neither"),
    "one tensor too many": (lambda s, k: s | {"extra.weight": torch.ones(2)}, "unexpected"),
    "one tensor renamed": (lambda s, k: drop(s, k) | {k + "_old": s[k]}, "missing|neither"),
    "one tensor of another shape": (lambda s, k: s | {k: torch.ones(3, 5, 7)}, "another shape"),
    "not finite": (lambda s, k: s | {k: torch.full_like(s[k], torch.nan)}, "not finite"),
    "another mask": (lambda s, k: s | {"attn_mask": torch.zeros(16, 16)}, "buffer 'attn_mask'"),
    "moving average beside it": (lambda s, k: {"state_dict": s, "state_dict_ema": s}, "entry=NAME"),
    "two entries": (lambda s, k: {"student": s, "teacher": {"module." + n: v for n, v in s.items()}}, "entry=NAME"),
    "moving average inside": (lambda s, k: s | {"ema." + n: v for n, v in s.items()}, "prefix="),
    "two prefixes": (lambda s, k: {p + n: v for p in ("a.", "b.") for n, v in s.items()}, "prefix="),
    "one prefix among others": (lambda s, k: {"net." + n: v for n, v in s.items()} | {"head.w": torch.ones(2)}, "prefix=net"),
    "nothing": (lambda s, k: {"epoch": 3}, "no weights"),
    "another network": (lambda s, k: {"fc.weight": torch.ones(2, 2)}, "neither"),
}  # fmt: skip


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ODDITIES)), st.integers(0, 10**6), st.sampled_from(["pth", "safetensors"]))
def test_a_checkpoint_loads_exactly_or_is_one_line(base, tuned, name, number, suffix):
    write, outcome = ODDITIES[name]
    state = {key: value.clone() for key, value in tuned.state_dict().items()}
    fixed = {"logit_scale", "positional_embedding", "visual.positional_embedding"}  # their shapes are mended
    key = sorted(state.keys() - fixed)[number % (len(state) - len(fixed))]
    payload = write(state, key)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"c.{suffix}"
        flat = all(isinstance(value, torch.Tensor) for value in payload.values())
        if suffix == "safetensors" and flat:
            save_file({k: v.contiguous().clone() for k, v in payload.items()}, file)
        else:
            torch.save(payload, file)
        try:
            model = models.build(f"checkpoint:{file}:base=local-dir:{base}")
        except UserError as error:
            assert outcome is not True, (name, key, str(error))
            assert "\n" not in str(error) and str(file) in str(error)
            assert any(part in str(error) for part in outcome.split("|")), (name, key, str(error))
            return
        assert outcome is True, (name, key)
        check(model, tuned)


def check(model, clip):
    """The logits are those of the library's own module, run by hand."""
    classifier = model.classifier(CLASSES, ["a photo of a {}"])
    with torch.no_grad():
        ids = model.tokenizer([f"a photo of a {name}" for name in CLASSES])
        head, pixels = clip.encode_text(ids, normalize=True), clip.encode_image(classifier.preprocess(IMAGES), normalize=True)
        torch.testing.assert_close(classifier(IMAGES), clip.logit_scale.exp() * pixels @ head.T, rtol=1e-5, atol=1e-5)


def test_the_user_chooses_between_two_models_in_one_file(base, tuned, tmp_path):
    state = tuned.state_dict()
    raw = {key: value + 0.05 if value.is_floating_point() else value for key, value in state.items()}
    torch.save({"state_dict": raw, "state_dict_ema": state}, tmp_path / "a.pth")
    torch.save({"raw": raw, "ema": {"model": state}}, tmp_path / "b.pth")
    torch.save({**{"net." + k: v for k, v in raw.items()}, **{"ema.net." + k: v for k, v in state.items()}}, tmp_path / "c.pth")
    for file, choice in (("a", "entry=state_dict_ema"), ("b", "entry=ema.model"), ("c", "prefix=ema.net")):
        check(models.build(f"checkpoint:{tmp_path}/{file}.pth:base=local-dir:{base}:{choice}"), tuned)
    with pytest.raises(UserError, match="no tensors under prefix=student.; its names begin with: net., ema."):
        models.build(f"checkpoint:{tmp_path}/c.pth:base=local-dir:{base}:prefix=student")
