"""One registry for every family: find plugins by file, card, entry point or `--plugin`, without importing them.

A plugin is a callable decorated with ``@register.attack`` (or dataset, model, objective, metric) in a file of its
family's folder; the file's name is the registered name. Its keyword-only parameters, with their defaults, are the
``key=value`` parameters of its spec strings. A card is a TOML file in ``cards/``: one named model or dataset as data.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, overload

from ..types import Param, Spec, UserError
from .paths import path_form
from .specs import convert, normalise, parse_spec

Made = TypeVar("Made", bound=Callable[..., Any])
FAMILIES = ("models", "datasets", "attacks", "objectives", "metrics")
SUITE_FOLDERS = ("suites", "recipes")
ROOT = Path(__file__).parent.parent
#: Parameters the engine fills in; they are never part of a spec.
INJECTED = {"variant", "card", "surrogate"}


@dataclass(frozen=True)
class Entry:
    """A name that `ls` can show: where it comes from and its one-line summary. Nothing is imported to make one."""

    family: str
    name: str
    kind: str  # "file" | "card" | "plugin"
    origin: str
    summary: str


@dataclass(frozen=True)
class Plugin:
    """A registered callable with its metadata (`meta` is what was given to the decorator)."""

    family: str
    name: str
    make: Callable[..., Any]
    origin: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str | None = None  # only for files the user brought: their content is part of a cell's identity

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Spec parameters by public name: a trailing underscore (``return_``) is dropped."""
        signature = inspect.signature(self.make)
        return {
            name.rstrip("_"): parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in INJECTED
        }

    @property
    def asks_for_card(self) -> bool:
        """Whether it is reached by the names of cards only, not by its own."""
        card = inspect.signature(self.make).parameters.get("card")
        return card is not None and card.default is card.empty


class Family:
    """The plugins of one family. Lists without importing; imports a module when its plugin is first asked for."""

    def __init__(self, name: str):
        self.name = name
        self.folder = ROOT / name
        self.singular = name.rstrip("s")
        self.plugins: dict[str, Plugin] = {}

    # -- declaring ---------------------------------------------------------------------------------------------
    @overload
    def __call__(self, make: Made, *, name: str | None = None, **meta: Any) -> Made: ...
    @overload
    def __call__(self, make: None = None, *, name: str | None = None, **meta: Any) -> Callable[[Made], Made]: ...
    def __call__(self, make: Made | None = None, *, name: str | None = None, **meta: Any) -> Made | Callable[[Made], Made]:
        """Decorator: register a callable under `name` (default: its own name, underscores as dashes)."""
        if make is None:
            return partial(self, name=name, **meta)
        key = normalise(name or make.__name__)
        origin = inspect.getsourcefile(make) or "<memory>"
        inside = ROOT in Path(origin).parents
        existing = self.plugins.get(key)
        if existing and existing.origin != origin:
            raise UserError(f"{self.singular} '{key}' is defined in {existing.origin} and again in {origin}")
        if not inside and key in self._files() and key not in self.plugins:
            raise UserError(f"{self.singular} '{key}' in {origin} has the name of a built-in one; choose another")
        digest = None if inside or not Path(origin).is_file() else hashlib.sha256(Path(origin).read_bytes()).hexdigest()
        self.plugins[key] = Plugin(self.name, key, make, origin, meta, digest)
        return make

    # -- finding -----------------------------------------------------------------------------------------------
    def _files(self) -> dict[str, Path]:
        return {normalise(p.stem): p for p in sorted(self.folder.glob("*.py")) if not p.stem.startswith("_")}

    def cards(self) -> dict[str, dict[str, Any]]:
        """All cards of this family by name; each knows its `path`."""
        return self._cards

    @cached_property
    def _cards(self) -> dict[str, dict[str, Any]]:
        return {normalise(path.stem): _card(path) for path in sorted((self.folder / "cards").glob("*.toml"))}

    def add_card(self, path: Path) -> None:
        """Add a user's own card file to the family."""
        self._cards[normalise(path.stem)] = _card(path)

    def entries(self) -> list[Entry]:
        """Everything that can be named, sorted; a card hides a file of the same name, a file that asks for a card is none."""
        _load_entry_points()
        found: dict[str, Entry] = {}
        for name, path in self._files().items():
            if (summary := _summary(path)) is not None:
                found[name] = Entry(self.name, name, "file", str(path), summary)
        for name, plugin in self.plugins.items():
            if name not in found and not plugin.asks_for_card:
                module = inspect.getmodule(plugin.make)
                said = inspect.getdoc(plugin.make) or (inspect.getdoc(module) if module else None) or ""
                found[name] = Entry(self.name, name, "plugin", plugin.origin, said.partition("\n")[0])
        for name, card in self.cards().items():
            found[name] = Entry(self.name, name, "card", card["path"], str(card.get("title", "")))
        return [found[name] for name in sorted(found)]

    def names(self) -> list[str]:
        return [entry.name for entry in self.entries()]

    def get(self, name: str) -> Plugin:
        """The plugin of that name, importing its module on first use.

        Raises:
            UserError: unknown name, with the nearest valid ones; or a missing optional dependency.
        """
        key = normalise(name)
        if key not in self.plugins:
            if path := self._files().get(key):
                importlib.import_module(f"robustcal.{self.name}.{path.stem}")
            else:
                _load_entry_points()
        if key not in self.plugins:
            raise self.unknown(name)
        return self.plugins[key]

    def unknown(self, name: str) -> UserError:
        """The one-line error for a name nobody registered; of a file or folder, what to write instead."""
        path = Path(name).expanduser()
        if path.exists() and (form := path_form(self.name, path)):
            return UserError(f"unknown {self.singular} '{name}': it is a {'folder' if path.is_dir() else 'file'}; {form}")
        if name.startswith((".", "/", "~")) or path_form(self.name, path):
            return UserError(f"unknown {self.singular} '{name}': there is no such file or folder")
        names = self.names()
        near = difflib.get_close_matches(normalise(name), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
        kin = next((family.name for family in register.families.values() if normalise(name) in family.names()), None)
        if kin and not any(normalise(name) in other for other in near):
            hint = f"it is one of the {kin}; see: robustcal ls {kin}"
        return UserError(f"unknown {self.singular} '{name}'; {hint}")

    # -- specs -------------------------------------------------------------------------------------------------
    def spec(self, text: str | Spec) -> Spec:
        """Parse and complete a spec: parameters checked, converted, and every default written out.

        The name may be a card's; then the card's `source` plugin defines the parameters.
        """
        spec = parse_spec(text) if isinstance(text, str) else text
        card, plugin = self._made_by(spec.name)
        if not card and plugin.asks_for_card:
            raise self.unknown(spec.name)
        if spec.variant and "variant" not in inspect.signature(plugin.make).parameters:
            raise UserError(f"{self.singular} '{spec.name}' takes no variant, but '{text}' gives '{spec.variant}'")
        known = plugin.parameters
        for key in spec.params:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
                hint = f"did you mean '{near[0]}'?" if near else f"it takes: {', '.join(known) or 'none'}"
                if any(isinstance(v, str) and normalise(parse_spec(v).name) in self.names() for v in spec.params.values()):
                    hint += "; a spec inside a spec takes no parameters of its own: give it a card or a run folder"
                raise UserError(f"{self.singular} '{spec.name}' has no parameter '{key}' (in '{text}'); {hint}")
        defaults = {**{k: p.default for k, p in known.items()}, **(card or {}).get("params", {})}
        params: dict[str, Param] = {}
        for key, parameter in known.items():
            if key in spec.params:
                params[key] = convert(spec.params[key], parameter, f"{key}={spec.params[key]} in '{text}'")
            elif defaults[key] is inspect.Parameter.empty:
                raise UserError(f"{self.singular} '{spec.name}' needs '{key}=' (in '{text}')")
            else:
                params[key] = defaults[key]
        return Spec(normalise(spec.name), spec.variant, params)

    def _made_by(self, name: str) -> tuple[dict[str, Any] | None, Plugin]:
        """The card of that name, if it is one, and the plugin that makes it."""
        card = self.cards().get(normalise(name))
        return card, self.get((card or {}).get("source", name))

    def arguments(self, spec: Spec) -> tuple[Plugin, dict[str, Any]]:
        """The plugin of a complete spec and the keyword arguments to call it with (variant and card included)."""
        card, plugin = self._made_by(spec.name)
        names = inspect.signature(plugin.make).parameters
        arguments: dict[str, Any] = {key if key in names else key + "_": value for key, value in spec.params.items()}
        if "variant" in names:
            arguments["variant"] = spec.variant
        if "card" in names:
            arguments["card"] = card
        return plugin, arguments

    def build(self, text: str | Spec) -> Any:
        """Call the plugin a spec names: a dataset or a model."""
        plugin, arguments = self.arguments(self.spec(text))
        return plugin.make(**arguments)


def folder_entries(folder: str) -> list[Entry]:
    """The TOML files of ``suites/`` or ``recipes/``, subfolders included: ``tiny/ucat``."""
    root = ROOT / folder
    titles = {path: tomllib.loads(path.read_text()).get("title", "") for path in sorted(root.rglob("*.toml"))}
    return [
        Entry(folder, str(path.relative_to(root).with_suffix("")), "card", str(path), title) for path, title in titles.items()
    ]


class Register:
    """``register.attack``, ``register.dataset``, ``register.model``, ``register.objective``, ``register.metric``."""

    def __init__(self) -> None:
        self.families = {name: Family(name) for name in FAMILIES}
        self.model, self.dataset, self.attack, self.objective, self.metric = self.families.values()


register = Register()
models, datasets, attacks, objectives, metrics = register.families.values()


@cache
def _load_entry_points() -> None:
    """Import installed packages that declare the entry point group ``robustcal.plugins``; once."""
    for point in entry_points(group="robustcal.plugins"):
        try:
            point.load()
        except Exception as error:  # one broken package must not hide the others
            raise UserError(f"plugin package '{point.value}' failed: {type(error).__name__}: {error}") from error


def _card(path: Path) -> dict[str, Any]:
    return {**tomllib.loads(path.read_text()), "path": str(path)}


@cache
def _summary(path: Path) -> str | None:
    """The first line of a plugin's file, which is not imported; None if it registers nothing, or nothing without a card."""
    text = path.read_text()
    if "@register." not in text:
        return None
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if any(argument.arg == "card" and default is None for argument, default in pairs):
                return None
    return (ast.get_docstring(tree) or "").partition("\n")[0]
