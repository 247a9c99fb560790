"""``robustcal ls``: every name there is, in aligned tables that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .. import registry
from ..types import UserError

#: What `ls` calls the layouts of a report, which are no family.
LAYOUTS = "layouts"
#: Facts of a dataset card that have a column of their own.
FACTS = ("classes", "size", "resolution")
NARROW = 100  #: columns a table is written for where there is no terminal
LEAST = 24  #: columns a summary needs beside the facts


def rows_of(family: str | None) -> list[dict[str, Any]]:
    """Every name of one family, or of all: name, family, kind, origin, summary, and the facts of a dataset card.

    The layouts are listed where they are asked for: their files take a second to open.

    Raises:
        UserError: there is no such family.
    """
    families = [*registry.FAMILIES, *registry.SUITE_FOLDERS]
    if family and family not in (*families, LAYOUTS):
        raise UserError(f"unknown family '{family}'; there are: {', '.join(families)}, {LAYOUTS}")
    rows = []
    for name in [family] if family else families:
        if name == LAYOUTS:
            entries = layouts()
        else:
            entries = getattr(registry, name).entries() if name in registry.FAMILIES else registry.folder_entries(name)
        rows += [{**entry.__dict__, **details(entry)} for entry in entries]
    return rows


def layouts() -> list[registry.Entry]:
    """The layouts of a report, each with what its function says."""
    from ..report import layouts as known

    made = [(name, str(sys.modules[of.__module__].__file__), of.__doc__ or "") for name, of in known.LAYOUTS.items()]
    return [registry.Entry(LAYOUTS, name, "layout", file, said.partition("\n")[0]) for name, file, said in made]


def details(entry: registry.Entry) -> dict[str, Any]:
    """Facts of a dataset card: source, classes, size, resolution, and whether it is present here."""
    if entry.family != "datasets" or entry.kind != "card":
        return {}
    from ..datasets.presence import availability

    card = registry.datasets.cards()[entry.name]
    present, hint = availability(card)
    facts: dict[str, Any] = {key: card[key] for key in ("source", "split", *FACTS) if key in card}
    return {**facts, "present": "yes" if present else f"no ({hint})"}


def tables(rows: Sequence[Mapping[str, Any]], verbose: bool = False, width: int | None = None) -> str:
    """The rows as one table per family, no line longer than `width` (by default the terminal's).

    Args:
        verbose: also where each name comes from, and what a dataset that is not here lacks.
    """
    width = shutil.get_terminal_size((NARROW, 24)).columns if width is None else width
    parts = []
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family]
        name_width = max(len(row["name"]) for row in own)
        keys = [key for key in FACTS if any(key in row for row in own)]
        widths = {key: max(len(key), *(len(str(row.get(key, ""))) for row in own)) for key in keys}
        here = any("present" in row for row in own)
        head = f"  {'':<{name_width}}" + "".join(f"  {key:>{widths[key]}}" for key in keys) + ("  here" if here else "")
        parts.append(f"{family}:" + (f"\n{head}" if keys else ""))
        for row in own:
            facts = "".join(f"  {row.get(key, '')!s:>{widths[key]}}" for key in keys)
            facts += f"  {str(row.get('present', 'yes')).partition(' ')[0]:<4}" if here else ""
            parts.append(_paragraph(f"  {row['name']:<{name_width}}{facts}  ", str(row["summary"]), width))
            if verbose:
                said = [f"{row['kind']}: {row['origin']}", str(row.get("present", "yes")).removeprefix("yes")]
                parts += [_paragraph(" " * (name_width + 4), text, width) for text in said if text]
    return "\n".join(parts)


def _paragraph(head: str, text: str, width: int) -> str:
    """Text after a head, its further lines under its first; all of it below the head where that leaves no room."""
    if width - len(head) < LEAST:
        return f"{head.rstrip()}\n{textwrap.fill(text, width, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}".rstrip()
    lines = textwrap.wrap(text, width - len(head)) or [""]
    return (head + ("\n" + " " * len(head)).join(lines)).rstrip()
