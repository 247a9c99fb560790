"""What a number was measured with, field by field: numbers share a column where all of it is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..cell import Cell
from ..registry import datasets, parse_spec
from ..report.captions import NORMS
from ..report.evaluate import Measured
from ..report.pairing import attack_facts, prompt_text
from ..types import Records, format_param, radius_text

#: Field -> value, both in words.
Protocol = Mapping[str, str]
#: Kinds of cell that have no adversary.
UNATTACKED = ("clean", "shift")


def threat_of(cell: Cell) -> str:
    """The threat model of a table: ball and radius; for cells without an adversary what they are."""
    if cell.kind in UNATTACKED:
        return "shifts that no adversary chose" if cell.kind == "shift" else "clean"
    return f"{NORMS.get(cell.threat.norm, cell.threat.norm)} {radius_text(cell.eps)}"


def dataset_of(cell: Cell) -> str:
    """Name and variant of a data set: what a table is of."""
    spec = parse_spec(cell.dataset)
    return ":".join(filter(None, [spec.name, spec.variant]))


def protocol_of(cell: Measured, members: Sequence[Cell], truth: str) -> dict[str, str]:
    """All that numbers of one column have in common, but the table's data set and ball.

    Args:
        members: of a worst case, the cells it was taken over; else the cell itself.
        truth: hash of the labels.
    """
    meta = cell.meta
    found = attack_of(meta, members) | data_of(meta)
    seed, key, n = cell.numbers.samples[0]
    taken = hashlib.sha256(f"{seed} {key} {n}".encode()).hexdigest()[:8]
    found["samples"] = f"{n} of {meta.dataset_size} (ids {taken}, labels {truth[:8]})"
    return {field: text for field, text in found.items() if text}


def attack_of(meta: Cell, members: Sequence[Cell]) -> dict[str, str]:
    """The fields of a protocol that an attack has."""
    if meta.kind == "clean":
        return {"attack": "none"}
    found: dict[str, str] = {}
    if meta.kind == "worst":
        found |= {"attack": meta.identity.attack, "over": "; ".join(sorted(cell.attack for cell in members))}
    else:
        found |= dict(attack_facts(parse_spec(meta.attack)))
    found["attack version"] = _all(f"{cell.attack.split(':')[0]} {cell.identity.attack_version}" for cell in members)
    found["attack file"] = _all((cell.identity.attack_file or "")[:12] for cell in members)
    found["crafted on"] = _all((cell.identity.surrogate or "")[:12] for cell in members)
    if meta.kind != "shift":
        found["goal"] = _all(cell.threat.goal for cell in members)
        found["return rule"] = _all(cell.threat.returns for cell in members)
        found["pixel range"] = _all(f"[{cell.threat.low:g}, {cell.threat.high:g}]" for cell in members)
        found["precision of the search"] = _all(cell.precision for cell in members)
    found["seed"] = _all(str(cell.seed) for cell in members)
    return found


def data_of(meta: Cell) -> dict[str, str]:
    """The fields of a protocol that a data set has."""
    spec = parse_spec(meta.dataset)
    split = spec.params.get("split") or datasets.cards().get(spec.name, {}).get("split", "")
    own = {f"data {key}": format_param(value) for key, value in spec.params.items() if key not in ("split", "resolution")}
    return {
        "split": format_param(split), "resolution": f"{meta.resolution} px", "images": f"{meta.dataset_size}",
        "data": meta.identity.data[:12], **own, "classes": f"{len(meta.classnames)}",
        "prompts": f"{prompt_text(meta.templates)[:160]} (hash {meta.identity.prompts[:8]})",
        "task": {"single": "", "multi": "several labels"}.get(meta.task, meta.task),
        "unreadable images": "left out" if meta.identity.skip_unreadable else "",
        "record version": f"{meta.identity.record_version}",
    }  # fmt: skip


def truth_of(records: Records) -> str:
    """A hash of the labels of records."""
    rows: Any = records.get("labels")
    if rows is None:
        told = " ".join(map(str, np.asarray(records["label"]).tolist()))
    else:
        told = "|".join(" ".join(map(str, sorted(map(int, row)))) for row in rows)
    return hashlib.sha256(told.encode()).hexdigest()


def differing(protocols: Sequence[Protocol]) -> list[str]:
    """The fields in which several protocols are not all the same, in order of appearance."""
    fields = dict.fromkeys(field for protocol in protocols for field in protocol)
    return [field for field in fields if len({protocol.get(field) for protocol in protocols}) > 1]


def _all(texts: Any) -> str:
    return "; ".join(dict.fromkeys(text for text in sorted(texts) if text))
