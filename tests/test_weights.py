"""Safe and strict loading: what is refused, why, and that nothing in a file ever runs."""

import argparse
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from robustcal.clip import weights
from robustcal.types import UserError

torch.set_num_threads(1)


def tower():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Linear(4, 2))


def refused(path, *words):
    """The one-line message with which a file is refused; it names the file and these words."""
    with pytest.raises(UserError) as error:
        weights.load_state_dict(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text
    for word in words:
        assert word in text, text
    return text


def test_safetensors_round_trip_is_exact_and_half_precision_becomes_float32(tmp_path):
    state = tower().state_dict()
    digest = weights.save_state_dict(state, tmp_path / "a.safetensors")
    loaded = weights.load_state_dict(tmp_path / "a.safetensors")
    assert digest == weights.sha256(tmp_path / "a.safetensors")
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], state[k]) for k in state)
    weights.save_state_dict(state, tmp_path / "h.safetensors", torch.float16)
    half = weights.load_state_dict(tmp_path / "h.safetensors")
    assert half["0.weight"].dtype == torch.float32 and torch.equal(half["0.weight"], state["0.weight"].half().float())
    assert half["1.num_batches_tracked"].dtype == torch.int64
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_sha256_follows_the_file(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"one")
    first = weights.sha256(file)
    file.write_bytes(b"three")
    assert weights.sha256(file) != first and len(first) == 64
    with pytest.raises(UserError, match="does not exist"):
        weights.sha256(tmp_path / "missing")


def test_torch_checkpoint_with_scores_and_options_loads(tmp_path):
    state = tower().state_dict()
    extra = {"best_acc1": np.float64(41.5), "args": argparse.Namespace(lr=1e-5), "epoch": 3, "state_dict": {}}
    torch.save({"vision_encoder_state_dict": state, **extra}, tmp_path / "c.pth.tar")
    loaded = weights.load_state_dict(tmp_path / "c.pth.tar")
    assert all(torch.equal(loaded[k], state[k]) for k in state)


def test_a_score_written_under_numpy_1_does_not_stop_the_load(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2)}, "best_acc1": np.float64(41.5)}, tmp_path / "now.pt")
    with zipfile.ZipFile(tmp_path / "now.pt") as now, zipfile.ZipFile(tmp_path / "then.pt", "w") as then:
        for name in now.namelist():
            then.writestr(name, now.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert weights.load_state_dict(tmp_path / "then.pt")["w"].sum() == 2


def test_an_empty_entry_does_not_hide_the_weights(tmp_path):
    torch.save({"state_dict": {}, "model": {"w": torch.ones(2)}}, tmp_path / "c.pt")
    assert list(weights.load_state_dict(tmp_path / "c.pt")) == ["w"]
    with pytest.raises(UserError, match="no entry 'ema' with tensors; it has: model"):
        weights.load_state_dict(tmp_path / "c.pt", "ema")


class Payload:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_malicious_checkpoint_is_refused_and_never_runs(tmp_path, suffix):
    target, file = tmp_path / "ran", tmp_path / f"evil{suffix}"
    torch.save({"state_dict": {"w": torch.ones(2)}, "hook": Payload(target)}, file)
    refused(file, "mkdir", "refused")
    assert not target.exists()
    pickle.loads(pickle.dumps(Payload(target)))  # the payload is real: an ordinary unpickler runs it
    assert target.exists()


def test_bare_pickle_is_refused(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"w": Payload(tmp_path / "ran")}))
    refused(tmp_path / "old.pth", "pickle", "refused")
    torch.save({"w": torch.ones(2)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    refused(tmp_path / "legacy.pth", "pickle")
    assert not (tmp_path / "ran").exists()


def test_truncation_is_noticed_at_every_length(tmp_path):
    weights.save_state_dict(tower().state_dict(), tmp_path / "a.safetensors")
    torch.save(tower().state_dict(), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 1, 8, 9, 40, len(whole) // 2, len(whole) - 1):
            (tmp_path / f"cut-{name}").write_bytes(whole[:length])
            refused(tmp_path / f"cut-{name}")


def test_what_is_no_weights_file_says_what_it_is(tmp_path):
    cases = {
        "page.pt": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
        "text.pt": (b"hello world, these are no weights", "no weights file"),
        "empty.pt": (b"", "empty"),
    }
    for name, (content, word) in cases.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, word)
    refused(tmp_path, "folder")
    refused(tmp_path / "missing.pt", "cannot be read")


def safetensors_bytes(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_absurd_safetensors_headers_are_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    for shape, offsets in [([10**12], [0, 4]), ([2**62, 2**62], [0, 4]), ([1], [0, 4 * 10**12]), ([-1], [0, 4])]:
        entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        file.write_bytes(safetensors_bytes({"w": entry}, b"\0" * 4))
        refused(file, "damaged")
    file.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    refused(file, "truncated")
    file.write_bytes(safetensors_bytes({}))
    refused(file, "no weights")


def test_zip_bomb_and_foreign_archives_are_refused(tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (50 << 20))
    assert bomb.stat().st_size < 1 << 20
    refused(bomb, "unpacks to more")
    plain = tmp_path / "plain.pt"
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    refused(plain, "zip archive without")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/constants.pkl", b"")
    refused(tmp_path / "program.pt", "TorchScript")


def test_a_tensor_that_claims_more_than_it_holds_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pt")
    refused(tmp_path / "wide.pt", "claims shape")
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    refused(tmp_path / "nan.pt", "'w'", "not finite")
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "sparse.pt")
    refused(tmp_path / "sparse.pt", "sparse")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "list")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    refused(tmp_path / "none.pt", "no weights", "epoch")


def test_match_is_strict_and_names_what_differs():
    module = tower()
    state = module.state_dict()
    weights.match(state, module)
    wrong = {**state, "0.weight": torch.zeros(4, 3, 5, 5), "extra.bias": torch.zeros(1)}
    del wrong["1.running_mean"]
    with pytest.raises(UserError) as error:
        weights.match(wrong, module, "c.pt")
    for word in ("c.pt", "1 missing (1.running_mean)", "1 unexpected (extra.bias)", "0.weight (4, 3, 5, 5)"):
        assert word in str(error.value)
    many = {f"k{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(UserError, match="and 6 more"):
        weights.match(many, module)
    fresh = tower()
    with pytest.raises(UserError):
        weights.load_into(fresh, wrong)
    assert all(torch.equal(fresh.state_dict()[k], state[k]) for k in state)  # a refused file changes nothing


def test_activation_is_told_and_a_mismatch_refused():
    from open_clip.transformer import QuickGELU

    quick = nn.Sequential(nn.Linear(2, 2), QuickGELU())
    assert weights.activation(quick) == "quickgelu" and weights.activation(tower()) == "gelu"
    assert weights.activation(nn.ReLU()) == "relu" and weights.activation(nn.Linear(1, 1)) == "none"
    assert weights.activation(nn.Sequential(nn.ReLU(), QuickGELU())) == "quickgelu"
    weights.check_activation("quickgelu", quick, "w")
    weights.check_activation(None, quick, "w")
    weights.check_activation("gelu", nn.ReLU(), "w")  # a convolutional tower has neither
    with pytest.raises(UserError, match="trained with quickgelu.*built with gelu"):
        weights.check_activation("quickgelu", tower(), "w")
    with pytest.raises(UserError, match="unknown"):
        weights.check_activation("swish", quick, "w")
