"""`robustcal check`: fingerprints that tell a wrong model, and what is missing where."""

import tomllib

import pytest
import torch
from tiny_clip import write_model

from robustcal.check import environment as env
from robustcal.check.fingerprint import as_toml, compare, fingerprint, probe_images, tensors_sha256
from robustcal.check.inspect import check, check_model, check_models, stated_fingerprint
from robustcal.clip import weights
from robustcal.registry import models, register
from robustcal.types import UserError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "vit", tower="vit")


@pytest.fixture(scope="module")
def measured(folder):
    return fingerprint(models.build(f"open-clip:local-dir:{folder}"))


def test_fingerprint_states_what_decides_the_logits(measured):
    assert measured["architecture"].startswith("VisionTransformer, 32 px, 32-d, ")
    assert measured["activation"] == "gelu" and measured["scores"] == "softmax"
    assert measured["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-4)
    assert len(measured["weights"]) == 64 and len(measured["logits"]) == 3 and len(measured["logits"][0]) == 5


def test_fingerprint_survives_the_card_and_agrees_with_itself(measured):
    stated = tomllib.loads(as_toml(measured))["fingerprint"]
    assert stated == measured
    assert all(ok for _, ok, _ in compare(measured, stated))


def test_weights_hash_ignores_the_container_but_not_a_weight(folder, tmp_path, measured):
    model = models.build(f"open-clip:local-dir:{folder}")
    torch.save(model.clip.state_dict(), tmp_path / "w.pt")
    other = models.build(f"open-clip:local-dir:{folder}")
    other.clip.load_state_dict(weights.load_state_dict(tmp_path / "w.pt"))
    assert tensors_sha256(other.clip) == measured["weights"]
    other.clip.visual.proj.data[0, 0] += 1e-3
    assert tensors_sha256(other.clip) != measured["weights"]


def test_the_wrong_activation_shows_although_every_weight_agrees(tmp_path, folder, measured):
    """The published accident: the same tensors in a model built with the other activation."""
    quick = write_model(tmp_path / "quick", tower="vit", quick_gelu=True)
    (quick / "open_clip_model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    found = {name: ok for name, ok, _ in compare(fingerprint(models.build(f"open-clip:local-dir:{quick}")), measured)}
    assert found["weights"] and found["architecture"] and not found["activation"] and not found["logits"]


def test_wrong_normalisation_shows_in_the_logits_alone(folder, measured):
    model = models.build(f"open-clip:local-dir:{folder}")
    model.mean = (0.5, 0.5, 0.5)
    found = {name: ok for name, ok, _ in compare(fingerprint(model), measured)}
    assert [name for name, ok in found.items() if not ok] == ["logits"]


def test_check_of_a_model_compares_with_its_card(folder, tmp_path, measured):
    (tmp_path / "checked.toml").write_text(
        f'title = "t"\nsource = "open-clip"\nvariant = "local-dir:{folder}"\n{as_toml(measured)}'
    )
    models.add_card(tmp_path / "checked.toml")
    card = models.cards()["checked"]
    try:
        assert all(row["ok"] and row["required"] for row in check_model("checked"))
        card["fingerprint"]["logit_scale"] = 100.0
        bad = [row for row in check(["checked"]) if not row["ok"]]
        assert [row["name"] for row in bad] == ["checked logit_scale"] and "the card says 100.0" in bad[0]["text"]
        assert stated_fingerprint(f"checked:local-dir:{folder}") is None  # the card speaks of its own weights only
        card["variant"] = "local-dir:/no/such/folder"
        assert any(row["name"] == "checked" and not row["ok"] for row in check_models())
    finally:
        del models.cards()["checked"]


def test_check_without_a_card_prints_the_facts(folder):
    rows = check([f"open-clip:local-dir:{folder}"])
    assert any("VisionTransformer" in row["text"] for row in rows)
    context = next(row for row in rows if row["name"].endswith(" context"))
    assert context["text"].startswith("16 tokens")
    assert "no fingerprint" in rows[-1]["text"] and all(row["ok"] for row in rows)
    with pytest.raises(UserError, match="unknown model 'nonsense'.*environment"):
        check(["nonsense"])


def test_a_model_of_another_kind_is_named_by_its_spec():
    register.model(lambda: object(), name="own-net")
    try:
        with pytest.raises(UserError, match="^model 'own-net' is no plain CLIP model"):
            check(["own-net"])
    finally:
        models.plugins.pop("own-net")


def test_probe_images_are_fixed():
    images = probe_images(32)
    assert images.shape == (3, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, probe_images(32)) and probe_images(224).shape == (3, 3, 224, 224)


def test_environment_tells_what_is_installed_and_how_to_get_the_rest(monkeypatch):
    rows = {row["name"]: row for row in env.environment()}
    assert rows["torch"]["ok"] and torch.__version__.startswith(rows["torch"]["text"]) and rows["torch"]["required"]
    assert {"python", "cpu", "data folder", "network"} <= set(rows)
    extras = [row for name, row in rows.items() if "[dev]" in name]
    assert extras and not any(row["required"] for row in extras)
    stated = ["torch>=99", "nonexistent-package>=1", 'other-missing>=2; extra == "speed"']
    monkeypatch.setattr(env.importlib.metadata, "requires", lambda name: stated)
    rows = {row["name"]: row for row in env.packages()}
    assert not rows["torch"]["ok"] and "too old: pip install 'torch>=99'" in rows["torch"]["text"]
    assert "not installed: pip install 'nonexistent-package>=1'" in rows["nonexistent-package"]["text"]
    assert rows["other-missing [speed]"]["text"].endswith("pip install 'robustcal[speed]'")


def test_datasets_are_checked_by_card():
    rows = {row["name"]: row for row in check(["datasets"])}
    assert rows["digits"]["ok"] and "cifar10" in rows


BUNDLED = [name for name, card in models.cards().items() if card["source"] == "bundled"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_are_the_ones_their_cards_describe(name):
    """The file, its sha256 and the fingerprint (activation, logit scale, logits) agree with the card."""
    rows = check_model(name)
    assert models.cards()[name]["sha256"] and stated_fingerprint(name) and all(row["ok"] for row in rows), rows
