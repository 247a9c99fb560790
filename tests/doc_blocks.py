"""The code blocks and links of the documentation, and how to run what a page tells a reader to run."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustcal import registry
from robustcal.cli import main, parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.is_file()]
#: Why a block is not run. Its robustcal commands are parsed all the same, and the names in them looked up.
NEEDS = {"weights", "data", "gpu", "cluster", "minutes"}
#: Commands that set an environment up, as `make test` itself does; they are not run again.
SETUP = {"make", "pip", "git", "source", "cd"}
LANGUAGES = {"python", "bash", "toml", "text", "json", "csv", "latex", ""}
MARK = re.compile(r"<!--\s*needs:\s*([a-z, ]+?)\s*-->")
FENCE = re.compile(r"^(\s*)(`{3,})\s*([\w-]*)[^`]*$")
COPY = re.compile(r"<!--\s*file: (\S+)\s*-->")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
PRINTS = re.compile(r"^It prints `([^`]+)`\.")
FAMILIES = ("models", "attacks", "datasets")


@dataclass(frozen=True)
class Block:
    """One fenced block. `source`: the file it is a copy of, as the line above says; `prints`: what the page says it prints."""

    page: Path
    line: int
    language: str
    text: str
    needs: frozenset[str]
    source: Path | None
    prints: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a bash block as words; comments and continued lines are handled."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
        return [command for command in words if command]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    lines, found, at = page.read_text().splitlines(), [], 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if not opening:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == opening[2])
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        below = next((line for line in lines[end + 1 :] if line.strip()), "")
        mark, prints = MARK.search(above), PRINTS.match(below.strip())
        needs = frozenset(word.strip() for word in mark[1].split(",")) if mark else frozenset()
        text = textwrap.dedent("\n".join(lines[at + 1 : end]) + "\n")
        copied = COPY.search(above)
        source = ROOT / copied[1] if copied else None
        language = opening[3] or ("bash" if any(line.startswith("robustcal ") for line in text.splitlines()) else "")
        found.append(Block(page, at + 1, language, text, needs, source, prints[1] if prints else None))
        at = end + 1
    return found


def links(page: Path) -> list[str]:
    """Addresses of links and pictures outside code."""
    text = re.sub(r"^(\s*)(`{3,}).*?^\1\2\s*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [a or b for a, b in LINK.findall(re.sub(r"`[^`\n]*`", "", text))]


def run_python(block: Block, names: dict) -> str:
    """Execute a python block in `names`; returns what it printed."""
    printed = io.StringIO()
    code = compile(block.text, str(block.source) if block.source else f"<{block.where}>", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def run_bash(block: Block) -> None:
    """Run the robustcal commands of a bash block in this process; any other command but set-up needs a mark."""
    for words in block.commands:
        if words[0] in SETUP:
            continue
        assert words[0] == "robustcal", f"{block.where}: '{' '.join(words)}' is not run; mark the block <!-- needs: ... -->"
        errors = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            status = main(words[1:])
        assert status == 0, f"{block.where}: {' '.join(words)}\n{errors.getvalue()[-600:]}"


def check_commands(block: Block) -> None:
    """Of a block that is not run: its commands parse, and the names in them exist."""
    for words in block.commands:
        if words[0] != "robustcal":
            continue
        options = parser().parse_args(words[1:])
        for family in FAMILIES if not getattr(options, "plugin", None) and options.command == "bench" else ():
            for text in getattr(options, family) or []:
                getattr(registry, family).spec(text)


@contextlib.contextmanager
def clean_registry() -> Iterator[None]:
    """Forget afterwards what a page registered, so that pages and other tests do not see one another."""
    before = {name: (set(family.plugins), dict(family.cards())) for name, family in registry.register.families.items()}
    try:
        yield
    finally:
        for name, family in registry.register.families.items():
            plugins, cards = before[name]
            for key in set(family.plugins) - plugins:
                if registry.ROOT not in Path(family.plugins[key].origin).parents:
                    del family.plugins[key]
            family._cards = cards
        for name in [name for name in sys.modules if name.startswith("robustcal_plugin_")]:
            del sys.modules[name]
