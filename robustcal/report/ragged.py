"""What a table cannot show because it was not run everywhere, in words for its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .averages import Averages, Member
from .evaluate import Results
from .labels import sentence

#: Pieces of a sentence that are spelled out.
MOST = 6


def over(averages: Averages, groups: Mapping[str, Sequence[Member]]) -> str:
    """What averages are over, in words.

    Args:
        groups: what a column or block is called -> the attacks and radii that are averaged over the same datasets there.
    """
    names = averages.results.labels["dataset"]
    sets = {title: averages.sets(*members) for title, members in groups.items()}
    whole = len(averages.datasets)
    if all(len(found) == whole for found in sets.values()):
        return f"averages over {whole} data sets" if whole > 1 else "one data set"
    told: dict[tuple[str, ...], list[str]] = {}
    for title, found in sets.items():
        told.setdefault(tuple(names[name] for name in found), []).append(title)
    parts = [f"{sentence(titles)} over {sentence(found) or 'none'}" for found, titles in told.items()]
    what = parts[0].partition(" over ")[2] if len(parts) == 1 else "; ".join(parts)
    return f"averages over the data sets that all shown models have: {what}"


def missing(results: Results, averages: Averages, members: Sequence[Member]) -> str:
    """Which of these attacks and radii are not there for which model on which dataset; "" where none is missing.

    What no model has on any dataset is not missed.
    """
    names, members = results.labels, tuple(dict.fromkeys(members))
    lacking: dict[tuple[tuple[str, ...], Member], list[str]] = {}
    for member in members:
        held = {(m, d): results.get(m, d, *member) is not None for m in averages.models for d in averages.datasets}
        for dataset in averages.datasets if any(held.values()) else ():
            without = tuple(model for model in averages.models if not held[model, dataset])
            if without:
                lacking.setdefault((without, member), []).append(dataset)
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Member]] = {}
    for (models, member), places in lacking.items():
        groups.setdefault((models, tuple(places)), []).append(member)
    parts = []
    for (models, datasets), found in groups.items():
        who = "any model" if len(models) == len(averages.models) else sentence(names["model"][model] for model in models)
        under = "" if len(found) == len(members) else f" under {sentence(_member(results, *member) for member in found)}"
        sets = [names["dataset"][name] for name in datasets]
        where = "any data set" if len(sets) == len(averages.datasets) else sentence(sets)
        parts.append(f"{who}{under} on {where}")
    parts = parts[:MOST] + ([f"{len(parts) - MOST} more"] if len(parts) > MOST else [])
    return f"Not in the run: {'; '.join(parts)}." if parts else ""


def _member(results: Results, attack: str, eps: str) -> str:
    label = results.labels["attack"].get(attack, attack)
    return label if eps == "0" else f"{label} at {eps}"
