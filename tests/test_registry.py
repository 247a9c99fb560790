"""Spec strings, discovery, plugin files and error messages."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcal import registry
from robustcal.cli import main
from robustcal.types import Spec, UserError, parse_radius

word = st.text("abcxyz019-.", min_size=1, max_size=8)
value = st.text("abcxyz019-./_", min_size=1, max_size=8)


@given(name=word, variant=st.none() | value, params=st.dictionaries(st.text("abcxyz", min_size=1, max_size=5), value, max_size=3))
def test_a_spec_survives_the_round_trip(name, variant, params):
    spec = Spec(name, variant, params)
    assert registry.parse_spec(str(spec)) == spec


def test_a_piece_without_equals_continues_the_value_before_it():
    spec = registry.parse_spec("transfer:from=clip:ViT-B-32/openai:steps=10")
    assert spec.params == {"from": "clip:ViT-B-32/openai", "steps": "10"}
    assert registry.parse_spec("clip:hf-hub:org/name").variant == "hf-hub:org/name"


def test_the_canonical_spec_has_every_default_and_rebuilds_itself():
    spec = registry.attacks.spec("pgd:steps=7")
    assert "steps=7" in str(spec) and "return=" in str(spec) and "loss=" in str(spec)
    assert str(registry.attacks.spec(str(spec))) == str(spec)
    assert str(registry.attacks.spec("pgd")) == str(registry.attacks.spec(str(registry.attacks.spec("pgd"))))


@pytest.mark.parametrize(
    "text, hint",
    [
        ("pdg", "did you mean"),
        ("pgd:stesp=3", "did you mean .step"),
        ("pgd:steps=ten", "steps=ten in 'pgd:steps=ten' is not a whole number"),
        ("pgd:steps=", "no value"),
        ("pgd:steps=1:steps=2", "twice"),
        ("pgd::steps=1", "malformed"),
        ("", "malformed"),
        ("pgd:strong", "takes no variant"),
    ],
)
def test_a_wrong_spec_gives_one_helpful_line(text, hint):
    with pytest.raises(UserError, match=hint) as caught:
        registry.attacks.spec(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-1/255", "abc", "1/0", "nan", "inf"])
def test_a_radius_is_a_number_of_at_least_zero(text):
    with pytest.raises(UserError):
        parse_radius(text)


def test_equal_radii_are_equal():
    assert parse_radius("2/510") == parse_radius("1/255") == parse_radius("0.5/127.5")
    assert parse_radius(0.5) == parse_radius("1/2")
    for k in (1, 4, 8, 255):
        for value in (k / 255, np.float64(k / 255), repr(k / 255), f"{k / 255:.14f}"):
            assert parse_radius(value) == Fraction(k, 255)
    assert parse_radius(0.5 / 255) == Fraction(1, 510)


@pytest.mark.parametrize("text", ["0.03", "0.0157", "1e-13", "0", "0.015686275", "3/191", "3921568627451/1000000000000000"])
def test_other_radii_keep_their_value(text):
    assert parse_radius(text) == Fraction(text)


PLUGIN = '''
"""A plugin file."""
from robustcal import register

@register.attack(kind="white-box", returns="last")
def my_test_shift(classifier, images, labels, threat, noise, *, amount: float = 1.0):
    """Brightens everything."""
    return (images + amount * threat.eps).clamp(0, 1)
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my.py"
    path.write_text(PLUGIN)
    yield path
    registry.attacks.plugins.pop("my-test-shift", None)


def test_a_plugin_file_is_found_and_listed_with_its_origin(plugin, capsys):
    assert main(["ls", "attacks", "--json", "--plugin", str(plugin)]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["my-test-shift"]["origin"] == str(plugin)
    assert rows["pgd"]["origin"].endswith("pgd.py")
    assert registry.attacks.get("my-test-shift").source_sha256


def test_a_plugin_without_docstring_is_summed_up_by_its_file(plugin):
    def summary():
        registry.load_plugin_file(plugin)
        return next(entry.summary for entry in registry.attacks.entries() if entry.name == "my-test-shift")

    first = summary()
    registry.attacks.plugins.pop("my-test-shift")
    plugin = plugin.with_name("other.py")
    plugin.write_text('"""Light.\n\nMore of it."""\n' + PLUGIN.replace('"""Brightens everything."""', "").split('"""')[-1])
    assert (first, summary()) == ("Brightens everything.", "Light.")


@pytest.mark.parametrize("text", ["this is not python", "raise ValueError('no')", "import no_such_module_here"])
def test_a_broken_plugin_file_is_one_line(tmp_path, text, capsys):
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert main(["ls", "--plugin", str(path)]) == 2
    error = capsys.readouterr().err
    assert "broken.py" in error and error.count("\n") == 1


def test_a_plugin_cannot_take_the_name_of_a_built_in_attack(tmp_path):
    path = tmp_path / "thief.py"
    path.write_text(PLUGIN.replace("my_test_shift", "square"))
    with pytest.raises(UserError, match="built-in|again in"):
        registry.load_plugin_file(path)


def test_an_installed_package_brings_plugins_by_entry_point(tmp_path):
    import os
    import subprocess
    import sys

    (tmp_path / "their_package.py").write_text(PLUGIN.replace("my_test_shift", "their_shift"))
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[robustcal.plugins]\ntheirs = their_package\n")
    command = [sys.executable, "-m", "robustcal.cli", "ls", "attacks", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["their-shift"]["origin"] == str(tmp_path / "their_package.py")
