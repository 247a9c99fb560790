"""Shell completion, written from the parser itself: ``eval "$(robustcal completion bash)"`` in a shell's start-up file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from .. import registry

#: Option -> the family whose names may follow it.
NAMES = {
    "--models": "models", "--model": "models", "--attacks": "attacks", "--datasets": "datasets", "--dataset": "datasets",
    "--metrics": "metrics", "--objective": "objectives",
}  # fmt: skip

SCRIPT = """_robustcal() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} option="" at
    for ((at = COMP_CWORD - 1; at > 1; at--)); do
        if [[ ${{COMP_WORDS[at]}} == --* ]]; then option=${{COMP_WORDS[at]}}; break; fi
    done
    if ((COMP_CWORD == 1)); then COMPREPLY=($(compgen -W "{commands}" -- "$word")); return; fi
    local words=""
    if [[ $word == -* ]]; then
        case $command in
{options}
        esac
    else
        case $command$option in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [[ -z ${{COMPREPLY[*]}} ]]; then COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -F _robustcal robustcal
"""


def script(commands: Mapping[str, argparse.ArgumentParser], shell: str) -> str:
    """The completion script for "bash" or "zsh": commands, options, their choices, and registered names."""
    options, values = [], []
    for name, command in commands.items():
        actions = [action for action in command._actions if action.option_strings]
        flags = " ".join(flag for action in actions for flag in action.option_strings if flag.startswith("--"))
        options.append(f'            {name}) words="{flags}" ;;')
        for action in actions:
            words = " ".join(map(str, action.choices or _names(action.option_strings[-1])))
            if words:
                values.append(f'            {name}{action.option_strings[-1]}) words="{words}" ;;')
    text = SCRIPT.format(commands=" ".join(commands), options="\n".join(options), values="\n".join(values))
    return text if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + text


def _names(option: str) -> list[str]:
    if option == "--suite":
        return [entry.name for entry in registry.folder_entries("suites")]
    family = NAMES.get(option)
    return getattr(registry, family).names() if family else []
