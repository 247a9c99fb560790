"""Everything that made a number: what `robustcal report RUN --explain CELL` prints and the page shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..cell import Cell, to_json
from ..records.store import Run
from ..types import radius_text
from .captions import NORMS, RETURNS
from .catalogue import BINS
from .evaluate import Measured, evaluate, not_one
from .merge import Source, merge
from .words import flag_meanings, word
from .worst_rows import worst_ids

Section = tuple[str, list[tuple[str, str]]]
#: How an interval was made, by the names of `Replicates.method`.
METHODS = {
    "score": "Wilson's score interval of a share of samples: of positive width at 0 % and 100 % too",
    "percentiles": "2.5 and 97.5 % of the values of bootstrap resamples of the samples, with noise of outcomes not seen",
    "inverted test": "the true errors under which a number like this one is neither too rare nor too common; the number itself is"
    " too large on average, since noise in the bins adds to it, so it can lie above its own interval",
}  # fmt: skip
SHARED = "ece and ece_debiased are two estimates of the same true error; the interval is that error's, and so the same"


def explain(runs: Sequence[Run], name: str, wanted: Sequence[str] = (), bins: int | None = None) -> str:
    """Everything that made the cell whose id starts with `name`, as text; only its model and dataset are read.

    Args:
        wanted: specs of further metrics.
        bins: of every calibration number.

    Raises:
        UserError: no such cell, or several; said before any record is read.
    """
    sources, _ = merge(runs)
    source = the_source(sources, name)
    pair = source.names["model"], source.names["dataset"]
    results = evaluate(runs, only=lambda s: (s.names["model"], s.names["dataset"]) == pair, wanted=wanted, bins=bins)
    return text(sections_of(results.find(name), results.bins))


def the_source(sources: Sequence[Source], name: str) -> Source:
    """The cell whose id starts with `name`, or a member of the worst case that does.

    Raises:
        UserError: none, or several.
    """
    known = {source.cell.id: source for source in sources} | worst_ids(sources)
    found = [id for id in known if name and id.startswith(name)]
    if len(found) != 1:
        alike = [s.cell.id for s in sources if name and name in " ".join(s.names.values())]
        raise not_one(name, found, found or alike)
    return known[found[0]]


def sections_of(cell: Measured, bins: int = BINS) -> list[Section]:
    """Sections of (name, value) pairs: the number, its protocol, its identity, its flags and its commands."""
    sections = [
        ("Cell", what(cell)),
        ("Numbers [95 % interval]", [*numbers(cell), ("bins of calibration errors", str(bins))]),
        ("How intervals were made", intervals(cell)),
        ("Protocol", list(protocol_facts(cell.meta).items())),
    ]
    sections.append(("Prompts", prompts(cell.meta)))
    sections.append(("Identity (hashed into the cell's id)", identity(cell.meta)))
    if cell.kind == "worst":
        sections.append(
            ("Worst case over", [(name, attack) for name, attack in zip(members(cell), cell.meta.over)])
        )
    meanings = flag_meanings()
    flags = [(flag, _flag(count, cell.n, meanings.get(flag, ""))) for flag, count in cell.flags.items()]
    sections.append(("Validity flags", flags or [("none", "no check raised one")]))
    return [*sections, ("Made by", provenance(cell.run.header))]


def text(sections: Sequence[Section]) -> str:
    """The sections as aligned plain text."""
    width = max(len(name) for _, pairs in sections for name, _ in pairs)
    lines = []
    for title, pairs in sections:
        lines += [title] + [f"  {name:<{width}}  {value}" for name, value in pairs] + [""]
    return "\n".join(lines)


def what(cell: Measured) -> list[tuple[str, str]]:
    names = ("id", "model", "dataset", "attack", "eps")
    return [(name, getattr(cell, name)) for name in names] + [("run", cell.run.path.resolve().name)]


def numbers(cell: Measured) -> list[tuple[str, str]]:
    """Each number with its 95 % limits, how they were made, and whether the number lies outside them."""
    rows = [("n", str(cell.n))]
    for spec, numbers in {"": cell.numbers, **cell.asked}.items():
        for name in numbers.values:
            value, low, high = numbers.interval(name)
            unit = word(name).unit
            scale, sign = (100, " %") if unit == "fraction" else (1, f" {unit}" if unit else "")
            how = numbers.method(name) + outside(value, low, high)
            bounds = f"  [{low * scale:.6g}, {high * scale:.6g}]  {how}" if low == low else "  no interval"
            rows.append((f"{name} ({spec})" if spec else name, f"{value * scale:.6g}{sign}{bounds}"))
    return rows


def outside(value: float, low: float, high: float) -> str:
    """A remark on a number outside its own interval."""
    slack = 1e-6 * max(abs(value), 1e-12)
    below = "; the number lies below" if value < low - slack else ""
    return "; the number lies above: noise adds to it" if value > high + slack else below


def intervals(cell: Measured) -> list[tuple[str, str]]:
    """What the methods named beside the numbers of a cell are."""
    used = {n.method(name) for n in (cell.numbers, *cell.asked.values()) for name in n.values}
    rows = [(method, about) for method, about in METHODS.items() if method in used]
    shared = {"ece", "ece_debiased"} <= set(cell.numbers.values)
    return rows + ([("one interval for two", SHARED)] if shared else [])


def protocol_facts(meta: Cell) -> dict[str, str]:
    """What was done to the samples, in words."""
    threat = meta.threat
    clean, norm = meta.kind in ("clean", "shift"), NORMS.get(threat.norm, threat.norm)
    facts = {"attack": meta.attack, "kind": meta.kind}
    if not clean:
        facts |= {
            "threat": f"{norm} ball of radius {radius_text(meta.eps)} in [{threat.low:g}, {threat.high:g}]",
            "goal": threat.goal,
            "return rule": f"{threat.returns}: {RETURNS.get(threat.returns, threat.returns)}",
        }  # fmt: skip
    facts |= {
        "resolution": f"{meta.resolution} pixels a side; the model resizes inside",
        "precision": "scored in fp32" + ("" if clean else f", attacked in {meta.precision}"),
        "samples": f"{meta.n} of {meta.dataset_size}",
        "seed": str(meta.seed),
        "task": {"single": "one label per image", "multi": "several labels per image", "ood": "no class is right"}.get(
            meta.task, meta.task
        ),
    }
    return {name: str(value) for name, value in facts.items()}


def prompts(meta: Cell) -> list[tuple[str, str]]:
    names = meta.classnames
    some = ", ".join(map(str, names[:8])) + (f", ... ({len(names)} classes)" if len(names) > 8 else "")
    texts = meta.templates
    if texts and not isinstance(texts[0], str):  # prompts per class
        own = [(f"prompts of {name}", "; ".join(mine)) for name, mine in zip(names[:8], texts, strict=False)]
        return [("classes", some), *own]
    return [("classes", some), *(("template", template) for template in texts)]


def identity(meta: Cell) -> list[tuple[str, str]]:
    return [(str(key), _plain(value)) for key, value in sorted(to_json(meta.identity).items())]


def members(cell: Measured) -> list[str]:
    """Ids of the cells a worst case was taken over."""
    return list(cell.meta.members)


def provenance(header: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commands, device and versions of a run."""
    rows = []
    for invocation in header.get("invocations", []):
        rows.append(("command", command(invocation)))
        rows += [
            (key, _plain(v))
            for key, v in invocation.items()
            if key in ("device", "precision", "seed", "batch_size", "plugins") and v
        ]
        rows += [(key, _plain(v)) for key, v in invocation.get("request", {}).items() if key in ("seed", "precision")]
    rows += [(name, str(version)) for name, version in sorted(header.get("versions", {}).items())]
    return rows


def command(invocation: Mapping[str, Any]) -> str:
    """The command line of an invocation, quoted for a shell."""
    words = invocation.get("command", "")
    return words if isinstance(words, str) else shlex.join(map(str, words))


def _flag(count: int | None, n: int, meaning: str) -> str:
    return (f"{count} of {n} samples; " if count is not None else "") + meaning


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
