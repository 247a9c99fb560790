"""BibTeX of everything that a run used: robustcal, and the papers of its models, attacks and data sets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..cell import Cell
from ..records.store import Run
from ..registry import attacks, datasets, models, normalise, parse_spec
from ..types import Spec, UserError

FILE = Path(__file__).parent / "citations.toml"
FAMILIES = {"model": models, "attack": attacks, "dataset": datasets}
#: How a spec says that a parameter is not used.
OFF = ("0", "0.0", "none", "false")


def bibtex(runs: Iterable[Run]) -> str:
    """The entries, each once, in the order of use; comments say what each is for, and what has none.

    Raises:
        UserError: runs without cells.
    """
    cells = [cell for run in runs for cell in run.cells()]
    given: dict[str, None] = {}
    if not cells:
        raise UserError("there is no cell in these runs, so nothing to cite")
    uses: dict[str, list[str]] = {}
    without: dict[str, None] = {}
    for axis in FAMILIES:
        for cell in cells:
            found, own = list(dict.fromkeys(works_of(axis, cell))), stated(axis, _name(axis, cell))
            for key in found:
                uses.setdefault(key, []).append(_name(axis, cell))
            given |= {f"% {_name(axis, cell)}\n{own}": None} if own else {}
            if not (found or own or _is_ours(axis, cell)):
                without[f"{axis} {_name(axis, cell)}"] = None
    parts = [entry("robustcal", ours())]
    parts += [f"% {', '.join(dict.fromkeys(names))}\n{entry(key, table()['works'][key])}" for key, names in uses.items()]
    parts += given
    if without:
        parts.append(f"% No citation is known for: {', '.join(without)}.")
    return "\n\n".join(parts) + "\n"


def _name(axis: str, cell: Cell) -> str:
    text: str = getattr(cell, axis)
    return text.partition(":")[0]


def stated(axis: str, name: str) -> str:
    """The BibTeX that a card or a plugin states about itself as ``citation``; "" if it states none."""
    family = FAMILIES[axis]
    about = family.cards().get(name) or (family.get(name).meta if name in family.names() else {})
    return str(about.get("citation", "")).strip()


def _is_ours(axis: str, cell: Cell) -> bool:
    """Whether there is nothing to cite but robustcal: sets that it renders, and what is no attack on a label."""
    if axis == "attack":
        return cell.kind in ("clean", "control", "shift")
    return axis == "dataset" and datasets.cards().get(_name(axis, cell), {}).get("source") == "world"


def works_of(axis: str, cell: Cell) -> Iterator[str]:
    """Keys of the works behind a cell's model, attack or data set, those of what it is built from included."""
    yield from _works(axis, getattr(cell, axis))
    if axis == "model":
        for name in (cell.training or {}).values():
            yield from table()["model"].get(str(name).partition(":")[0], ()) if isinstance(name, str) else ()


def _works(axis: str, text: str) -> Iterator[str]:
    try:
        spec = parse_spec(text)
    except UserError:
        return
    known, name = table()[axis], normalise(spec.name)
    yield from known.get(name, ())
    yield from _card_works(name) if axis == "model" and name not in known else ()
    for key, works in known.items():
        if key.startswith(f"{name}:") and _has(spec, key.partition(":")[2]):
            yield from works
    for value in spec.params.values():  # a model made from another, an attack crafted on one, prompts of a set
        if isinstance(value, str) and value.partition(":")[0] in {**table()["model"], **models.cards()}:
            yield from _works("model", value)


def _card_works(name: str) -> Iterator[str]:
    """Those of a published checkpoint: of the method on its card, of a release by others, of the weights that it came from."""
    if name in models.cards():
        known, card = table()["model"], models.cards()[name]
        yield from known.get(card.get("method", ""), ())
        yield from known.get(f"release:{card.get('release')}", ())
        yield from known["clip"] + (known["clip:laion"] if "laion" in f"{name} {card.get('title')}".lower() else [])


def _has(spec: Spec, word: str) -> bool:
    given = {key: value for key, value in spec.params.items() if str(value).lower() not in OFF}
    return word in given or word in (spec.variant or "").lower()


@cache
def table() -> Mapping[str, Any]:
    """What is in ``citations.toml``."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def ours() -> dict[str, Any]:
    """The entry of robustcal itself."""
    from .. import __version__

    title = "robustcal: Robustness and Calibration of Zero-Shot {CLIP} Classifiers under Attack"
    return {"type": "software", "author": "{the robustcal authors}", "title": title, "version": __version__}


def entry(key: str, fields: Mapping[str, Any]) -> str:
    """One BibTeX entry; braces and accents in the fields are TeX already."""
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if name != "type"]
    return "\n".join([f"@{fields['type']}{{{key},", *lines, "}"])
