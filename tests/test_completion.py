"""Shell completion, asked of a real bash."""

import shutil
import subprocess

import pytest

from robustcal import registry
from robustcal.cli import main, parser

BASH = shutil.which("bash")


def complete(script, *words):
    """What bash offers for the last of these words."""
    ask = f'{script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _robustcal; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run([BASH, "--norc", "-c", ask, "bash", *words], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture
def script(capsys):
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_commands_options_and_names(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = next(action.choices for action in parser()._actions if action.dest == "command")
    assert complete(script, "robustcal", "") == set(commands)
    for name, command in commands.items():
        own = {option for action in command._actions for option in action.option_strings if option.startswith("--")}
        assert complete(script, "robustcal", name, "--") == own
    assert complete(script, "robustcal", "bench", "--attacks", "clean", "p") == {n for n in registry.attacks.names() if n[0] == "p"}
    assert complete(script, "robustcal", "bench", "--precision", "f") == {"fp32", "fp16"}
    (tmp_path / "mine.toml").touch()
    assert complete(script, "robustcal", "bench", "--suite", "mine") == {"mine.toml"}, "files where no name fits"


def test_zsh_reads_the_same_script_through_its_bash_compatibility(script, capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == "autoload -U +X bashcompinit && bashcompinit\n" + script
