"""What ``bench --dry-run`` prints: a plan and its cost on one screen of text."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import registry
from ..progress.display import hours
from ..report.labels import written
from ..types import UserError, format_param, radius_text

if TYPE_CHECKING:
    from ..sweep.estimate import Outlook


def screen(found: Outlook) -> str:
    """The text of an outlook (`estimate.outlook`): attacks, data sets, models, then the sums."""

    def here(spec: str) -> str:
        return f"no: {found.absent[spec]}" if spec in found.absent else "yes"

    attacks = [(brief("attacks", row.spec), f"{row.forwards:,}", f"{row.backwards:,}", "") for row in found.attacks]
    sets = [
        (brief("datasets", row.spec), f"{row.n:,}", f"{row.classes:,}", str(row.resolution), here(row.spec))
        for row in found.datasets
    ]  # fmt: skip
    models = [
        (
            brief("models", row.spec), f"{row.forward * 1e3:.3g} ms", f"{row.gradient * 1e3:.3g} ms", row.stand_in or "itself",
            here(row.spec),
        )
        for row in found.models
    ]  # fmt: skip
    tables = [
        table(("attack, of one sample at most", "forward passes", "input gradients", ""), attacks),
        table(("data set", "samples", "classes", "pixels", "here"), sets),
        table(("model, for one image", "forward", "and gradient", "timed as", "here"), models),
    ]
    return "\n\n".join([headline(found), *tables, sums(found), *fetching(found)])


def fetching(found: Outlook) -> list[str]:
    """The commands that get what is not here, one a line, and what has to be put there by hand; [] if all is here."""
    sets = [registry.parse_spec(row.spec).name for row in found.datasets if row.spec in found.absent]
    by_hand = [name for name in sets if "download" not in registry.datasets.cards().get(name, {})]
    fetched = " ".join(name for name in sets if name not in by_hand)
    build = "import sys; from robustcal.registry import datasets; datasets.build(sys.argv[1])"
    lines = [f'for set in {fetched}; do python -c "{build}" $set; done'] if fetched else []
    if fetched and (root := os.environ.get("ROBUSTCAL_DATA")):  # --data-root, which the lines below do not know of
        lines.insert(0, f"export ROBUSTCAL_DATA={shlex.quote(root)}")
    for model in found.models:
        if (how := found.absent.get(model.spec, "")).startswith("robustcal "):
            lines.append(how)
        elif how:
            lines.append(f'python -c "import robustcal; robustcal.load_model({brief("models", model.spec)!r})"')
    lines += [f"# by hand, as said above: {', '.join(by_hand)}"] if by_hand else []
    return ["\n".join(["to get what is not here:", *lines])] if lines else []


def headline(found: Outlook) -> str:
    """How many cells, and of what."""
    sizes = {axis: len(getattr(found, axis)) for axis in ("models", "attacks", "datasets")}
    axes = " x ".join(f"{count} {axis if count > 1 else axis[:-1]}" for axis, count in sizes.items())
    return f"{found.cells} cells: {axes}" + (f", eps {' '.join(map(radius_text, found.eps))}" if found.eps else "")


def brief(family: str, spec: str) -> str:
    """A canonical spec without the parameters that have their defaults; radii and steps as fractions."""
    parsed = registry.parse_spec(spec)
    try:
        usual = getattr(registry, family).spec(":".join(filter(None, (parsed.name, parsed.variant)))).params
    except UserError:  # a parameter without a default
        usual = {}
    params = [f"{key}={written(key, value)}" for key, value in parsed.params.items() if value != format_param(usual.get(key))]
    return ":".join(filter(None, (parsed.name, parsed.variant, *params)))


def sums(found: Outlook) -> str:
    """The cost of everything, aligned."""
    device, precision, name = found.hardware
    where = f"{found.workers} {device} worker{'s' * (found.workers > 1)} ({name}, {precision})"
    forwards, backwards = (sum(getattr(row, kind) for row in found.models) for kind in ("forwards", "backwards"))
    lines = [
        ("samples", f"{found.samples:,} in {found.shards:,} shards"),
        ("passes", f"{forwards:,} forward passes, {backwards:,} input gradients"),
        ("records", size(found.bytes)),
        ("time", f"about {hours(found.seconds)} on {where}, timed just now"),
    ]
    missing = {axis: sum(row.spec in found.absent for row in getattr(found, axis)) for axis in ("models", "datasets")}
    if any(missing.values()):
        said = " and ".join(f"{count} of {len(getattr(found, axis))} {axis}" for axis, count in missing.items() if count)
        lines.append(("not here", f"{said}; planned from their cards, timed with random weights and images"))
    return "\n".join(f"{name:<9}{text}" for name, text in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names: the first and the last flush left, numbers flush right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    sides = ["<", *">" * (len(head) - 2), "<"]
    lines = ["  ".join(f"{text:{side}{width}}" for text, side, width in zip(row, sides, widths)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def size(count: float) -> str:
    """``6412345678`` -> ``6.4 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
