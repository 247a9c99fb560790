"""The results page: one static HTML file that carries its data, styles and script, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..metrics.concerns import OF_PREDICTIONS, OF_PROBABILITIES
from .averages import Averages, ranked
from .details import Details
from .evaluate import Measured, Results
from .explain import protocol_facts
from .frame import CSV_METRICS, NOTHING
from .headline import captions, lead, made, told_run
from .modelcards import model_cards
from .parts import first_shown
from .sections import about_attack, sections
from .stats import Replicates, flags_of
from .tables import Table
from .words import METRICS, flag_meanings

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("base.js", "series.js", "charts.js", "overview.js", "board.js", "sections.js", "cells.js", "cell.js", "start.js")
#: Protocol facts that belong to a single cell; the others are shared and stored once.
OWN_FACTS = ("attack", "threat", "samples")
#: Numbers of the leaderboard; those that some cell has.
NUMBERS = (*CSV_METRICS, "ece_debiased", "mean_gap")


def page(
    results: Results, files: Sequence[tuple[str, str]] = (), images: Mapping[tuple[str, str], str] | None = None,
    asked: Mapping[str, Sequence[Table]] | None = None,
) -> str:  # fmt: skip
    """The page of these results as HTML.

    Args:
        results: from `evaluate(..., details=describe)`.
        files: (relative address, text) of files to link to.
        images: (cell id, sample id) -> relative address of a picture of that sample.
        asked: layout -> its tables, of those that were asked for.
    """
    style = "".join(["\n", (ASSETS / "page.css").read_text()])
    script = "\n" + "\n".join((ASSETS / name).read_text() for name in SCRIPTS)
    # Only this script and style may run, and nothing may be fetched: even markup that slipped in could do nothing.
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}';"
        " img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    fills = {
        "policy": policy, "title": results.title or "robustcal results", "style": style, "script": script,
        "data": embed({**payload(results, files, images or {}), "sections": sections(results, asked or {})}),
    }  # fmt: skip
    text = (ASSETS / "page.html").read_text()
    before, *rest = text.split("{{")
    parts = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        value = fills[name]
        parts += [value if name in ("style", "script", "data") else html.escape(value), after]
    return "".join(parts)


def embed(value: Any) -> str:
    """JSON for the inside of a script element: without ``<``, so that no text can end it or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def payload(
    results: Results, files: Sequence[tuple[str, str]], images: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Everything the page shows, as plain lists and mappings; places in lists stand for names."""
    axes = {axis: results.values(axis) for axis in ("model", "dataset", "attack")}
    place = {axis: {name: at for at, name in enumerate(names)} for axis, names in axes.items()}
    kinds = {cell.attack: cell.meta for cell in results.cells}
    protocols: dict[str, int] = {}
    at = {cell.id: i for i, cell in enumerate(results.cells)}
    clean = {(cell.model, cell.dataset): at[cell.id] for cell in reversed(results.cells) if cell.kind == "clean"}
    cells = [
        _cell(cell, place, protocols, images) | {"clean": clean.get((cell.model, cell.dataset))} for cell in results.cells
    ]
    _rank_cells(results, cells)
    meanings, raised = flag_meanings(), {flag for cell in results.cells for flag in cell.flags}
    (attack, eps), attacks = first_shown(results), results.labels["attack"]
    return {
        "lead": lead(results),
        "made": made(results),
        "metrics": [
            {"key": key, "title": METRICS[key].title, "short": METRICS[key].short, "unit": METRICS[key].unit,
             "better": METRICS[key].better, "about": METRICS[key].about, "listed": key in CSV_METRICS}
            for key in NUMBERS if key in CSV_METRICS or any(key in cell.numbers.values for cell in results.cells)
        ],
        "models": model_cards(results),
        "datasets": [{"spec": name, "label": results.labels["dataset"][name]} for name in axes["dataset"]],
        "attacks": [
            {"spec": name, "label": attacks[name], "kind": kinds[name].kind, "about": about_attack(kinds[name], attacks)}
            for name in axes["attack"]
        ],
        "radii": results.values("eps"),
        "sizes": {cell.eps: cell.meta.threat.eps for cell in results.cells},
        "first": {"attack": place["attack"].get(attack or ""), "eps": eps},
        "concerns": {"predictions": OF_PREDICTIONS, "probabilities": OF_PROBABILITIES},
        "cells": cells,
        "averages": _averages(results, place),
        "protocols": [json.loads(text) for text in protocols],
        "captions": captions(results),
        "notes": results.notes,
        "flags": {flag: text for flag, text in meanings.items() if flag in raised},
        "runs": [told_run(run) for run in results.runs],
        "files": [{"href": href, "text": text} for href, text in files],
    }  # fmt: skip


def _cell(
    cell: Measured, place: Mapping[str, Mapping[str, int]], protocols: dict[str, int], images: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    facts = protocol_facts(cell.meta)
    shared = json.dumps({key: value for key, value in facts.items() if key not in OWN_FACTS})
    own = {key: facts[key] for key in OWN_FACTS if key in facts}
    if cell.kind == "worst":
        own["attack"] = "worst of " + "; ".join(cell.meta.over)
    identity = cell.meta.identity
    own |= {"weights": identity.weights[:80], "prompts": identity.prompts}
    own |= {"template": "; ".join(map(str, cell.meta.templates[:3])), "classes": str(len(cell.meta.classnames))}
    return {
        "id": cell.id, "model": place["model"][cell.model], "dataset": place["dataset"][cell.dataset],
        "attack": place["attack"][cell.attack], "eps": cell.eps, "radius": cell.meta.threat.eps, "n": cell.n,
        "v": _values(cell.numbers, NUMBERS), "rank": {}, "flags": cell.flags,
        "protocol": protocols.setdefault(shared, len(protocols)), "own": own,
        **_details(cell, images),
    }  # fmt: skip


def _values(numbers: Replicates, names: Sequence[str]) -> dict[str, list[float | None]]:
    return {name: [_short(x) for x in numbers.interval(name)] for name in names if name in numbers.values}


def _short(x: float) -> float | None:
    """Five significant digits; None for what is not a number."""
    return float(f"{x:.5g}") if math.isfinite(x) else None


def _details(cell: Measured, images: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    details: Details | None = cell.details
    if details is None:
        return {"bins": [], "confidences": [], "entropies": None, "most": 1, "samples": []}
    b = details.bins
    rows = zip(b.counts, b.confidence, b.accuracy, b.lower, b.upper)
    samples = [
        {key: value for key, value in one.__dict__.items() if value not in (None, "")}
        | {"image": images.get((cell.id, one.id))}
        for one in details.samples
    ]
    for one in samples:
        one |= {key: _short(one[key]) for key in ("confidence", "trust") if key in one}
        one.setdefault("flags", "")
        if one["image"] is None:
            del one["image"]
    return {
        "bins": [[int(n), *(_short(float(x)) for x in numbers)] if n else [0] for n, *numbers in rows],
        "confidences": details.confidences.tolist(), "entropies": details.entropies.tolist(),
        "most": _short(details.most), "samples": samples,
    }  # fmt: skip


def _rank_cells(results: Results, cells: list[dict[str, Any]]) -> None:
    """Mark the best (and significantly so) and the second model of every dataset, attack and radius."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, cell in enumerate(results.cells):
        groups.setdefault((cell.dataset, cell.attack, cell.eps), []).append(i)
    for members in groups.values():
        for name in NUMBERS:
            numbers = {str(i): results.cells[i].numbers for i in members if name in results.cells[i].numbers.values}
            for at, rank in ranked(numbers, name).items():
                cells[int(at)]["rank"][name] = rank


def _averages(results: Results, place: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    averages = Averages(results)
    found = []
    pairs = {(cell.attack, cell.eps): cell.kind for cell in results.cells}
    for (attack, eps), kind in pairs.items():
        group = {}
        for model in averages.models:
            mean = averages.get(model, attack, eps)
            h = averages.harmonic(model, attack, eps) if kind != "clean" else None
            if mean is not None:
                more = h or NOTHING
                values, draws = {**mean.values, **more.values}, {**mean.draws, **more.draws}
                group[model] = replace(mean, values=values, draws=draws, flags=flags_of((mean, more)))
        names = [*NUMBERS, "h"]
        ranks = {name: ranked({m: x for m, x in group.items() if name in x.values}, name) for name in names}
        for model, numbers in group.items():
            rank = {name: ranks[name][model] for name in names if model in ranks[name]}
            found.append({
                "model": place["model"][model], "attack": place["attack"][attack], "eps": eps,
                "datasets": len(averages.sets((attack, eps))), "v": _values(numbers, names), "rank": rank, "flags": numbers.flags,
            })  # fmt: skip
    return found
