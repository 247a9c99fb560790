"""Labels that people give to models, attacks and data sets: where a run keeps them, and what they are in text and LaTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ..records.store import Run
from ..registry import clean_label
from ..types import UserError

#: Mathematics in a label, ``$...$``, by control words that only print. Anything else a dollar sign begins is text.
SYMBOLS = {
    "infty": "∞", "ell": "ℓ", "times": "×", "pm": "±", "cdot": "·", "star": "⋆", "ast": "∗", "dagger": "†", "ddagger": "‡",
    "to": "→", "rightarrow": "→", "uparrow": "↑", "downarrow": "↓", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "approx": "≈",
    "sim": "∼", "circ": "∘", "prime": "′", "lambda": "λ", "Lambda": "Λ", "varepsilon": "ε", "vartheta": "ϑ", "varphi": "φ",
    "oplus": "⊕", "cap": "∩", "cup": "∪", "emptyset": "∅", "checkmark": "✓", "nabla": "∇", "partial": "∂",
}  # fmt: skip
#: Control words that only change the face of what follows.
FACES = (
    "mathrm", "mathbf", "mathit", "mathcal", "mathsf", "mathtt", "mathbb",
    "text", "textrm", "textbf", "textit", "textsc", "textsf",
)  # fmt: skip
MATHS = re.compile(r"\$([^$]+)\$")
WORD = re.compile(r"\\([A-Za-z]+)\s*|\\([,;! ])|[\^_{}]")


def is_maths(body: str) -> bool:
    """Whether what stands between two dollar signs only prints: known control words, balanced braces, plain signs."""
    words = re.findall(r"\\([A-Za-z]+|.?)", body)
    depth = 0
    for sign in re.sub(r"\\.", "", body):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    known = all(word in SYMBOLS or word in FACES or word in ",;! " or _greek(word) for word in words)
    return depth == 0 and known and not re.search(r"[%#&~\"`]", body) and not body.isspace()


def plain(label: str) -> str:
    """A label as text: ``$\\ell_\\infty$-PGD`` is ℓ∞-PGD. What is no `is_maths` stays as it is."""
    return MATHS.sub(lambda found: _signs(found[1]) if is_maths(found[1]) else found[0], label)


def _signs(body: str) -> str:
    return WORD.sub(lambda found: _sign(found[1]) if found[1] else "", body).strip()


def _sign(word: str) -> str:
    return "" if word in FACES else SYMBOLS.get(word) or _greek(word) or word


def _greek(word: str) -> str:
    """The Greek letter of a control word, ``alpha`` or ``Delta``; else ""."""
    size = "SMALL" if word.islower() else "CAPITAL"
    try:
        return unicodedata.lookup(f"GREEK {size} LETTER {word.upper()}") if word.isalpha() else ""
    except KeyError:
        return ""


def kept_labels(runs: Iterable[Run]) -> dict[str, dict[str, str]]:
    """Axis -> whole spec -> label, as the calls say that made the runs; the latest call, of the last run, wins."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        for invocation in run.header.get("invocations", []):
            request = invocation.get("request")
            given = request.get("labels") if isinstance(request, dict) else None
            for axis, names in (given if isinstance(given, dict) else {}).items():
                texts = {spec: clean_label(str(label)) for spec, label in names.items()} if isinstance(names, dict) else {}
                found.setdefault(axis, {}).update({spec: label for spec, label in texts.items() if label})
    return found


def labelled(short: Mapping[str, str], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> label of one axis, those that people gave in the place of the short ones; and label -> its TeX, of the same.

    Two that share a label keep their short names in brackets. What tells two things of one spec apart stays at the end.
    """
    raw = {name: given.get(name.rpartition(" #")[0] or name) or given.get(name) for name in short}
    marks = {name: f" #{name.rpartition(' #')[2]}" if " #" in name else "" for name in short}
    texts = {name: plain(label) + marks[name] if label else short[name] for name, label in raw.items()}
    shown, tex = {}, {}
    for name, text in texts.items():
        label, alone = raw[name], [*texts.values()].count(text) == 1
        rest = "" if alone or not label else f" ({short[name]})"
        shown[name] = text + rest
        if label:
            tex[shown[name]] = label + marks[name] + rest
    return shown, tex


def renamed(names: Mapping[str, Mapping[str, str]], orders: Sequence[str]) -> dict[str, dict[str, str]]:
    """The labels that ``--rename OLD=NEW`` asks for: axis -> whole name -> label.

    Args:
        names: axis -> whole name -> what it is called now. OLD is either; NEW is all that follows the first ``=`` before
            which something is called so.

    Raises:
        UserError: nothing is called OLD, no NEW, or one name for two things.
    """
    found: dict[str, dict[str, str]] = {}
    for order in orders:
        cuts = [at for at, sign in enumerate(order) if sign == "="]
        places = [(axis, name, at) for at in cuts for axis, name in _called(names, order[:at].strip())]
        if not cuts or not places:
            known = [label for axis in names.values() for label in axis.values()]
            why = "nothing is called so" if cuts else "write OLD=NEW"
            raise UserError(f"--rename '{order}': {why}; there are: {', '.join(known)}")
        new = clean_label(order[places[0][2] + 1 :])
        if not new:
            raise UserError(f"--rename '{order}' has no new name behind the '='")
        for axis, name, at in places:
            if at == places[0][2]:
                found.setdefault(axis, {})[name] = new
    for given in found.values():
        twice = [label for label in given.values() if [*given.values()].count(label) > 1]
        if twice:
            raise UserError(f"--rename gives the name '{twice[0]}' to two things")
    return found


def _called(names: Mapping[str, Mapping[str, str]], old: str) -> list[tuple[str, str]]:
    return [(axis, name) for axis, called in names.items() for name, label in called.items() if old and old in (name, label)]
