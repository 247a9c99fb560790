"""One model against all others on the same samples: paired differences, corrected p-values, and ratios of errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..metrics.concerns import concerning, is_valid
from .asked import column_names
from .averages import MULTI, SINGLE, Averages, Member
from .captions import protocol
from .evaluate import Results
from .ragged import missing, over
from .stats import FEWEST, Difference, Interval, Replicates, average, difference, holm
from .tables import Column, Entry, Row, Table
from .words import BINNED, flag_meanings, word

#: Compared by task, besides what was asked for; the errors that also have a ratio.
COMPARED = {SINGLE: ("accuracy", "ece"), MULTI: ("map", "label_ece")}
RATIOS = ("ece", "label_ece")
ALPHA = 0.05


@dataclass(frozen=True)
class Contrast:
    """One model less the reference, on one dataset or on average.

    Attributes:
        dataset: its whole name; "" for the average.
        differences: number -> difference; its p-value is not corrected.
        ratios: number -> value of the model over that of the reference.
    """

    attack: str
    eps: str
    clean: bool
    model: str
    dataset: str
    differences: dict[str, Difference]
    ratios: dict[str, Interval]
    flags: tuple[str, ...] = ()  # of the cells of both
    adjusted: dict[str, float] = field(default_factory=dict)  # number -> p after Holm, nan where there is no test


def ratio(reference: Replicates, other: Replicates, name: str, level: float = 0.95) -> Interval:
    """Value of `other` over that of `reference`, with the percentiles of the ratio of their draws, which are paired.

    Where more than a tail of the reference's draws are 0 the ratio has no upper limit, and then no interval.
    """
    below, above = reference.draws[name], other.draws[name]
    value = other.values[name] / reference.values[name] if reference.values[name] else float("nan")
    if not len(below) or not np.isfinite([*below, *above]).all():
        return Interval(value, float("nan"), float("nan"))
    draws = np.full(len(below), np.inf)
    np.divide(above, below, out=draws, where=below > 1e-12)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(value, float(low), float(high)) if np.isfinite(high) else Interval(value, float("nan"), float("nan"))


def contrasts(results: Results, reference: str, task: str = SINGLE) -> list[Contrast]:
    """Every other model less the reference: clean and under each attack and radius, on each dataset, then on average.

    The average is over the datasets that all models have which were attacked so. Holm's correction is over the models
    and datasets of one attack and radius, for each number by itself; averages are corrected among themselves.

    Args:
        reference: its whole name, see `Results.model`.
    """
    averages, wanted = Averages(results, task), {title: pair for pair, title in column_names(results, COMPARED[task]).items()}
    found: list[Contrast] = []
    for attack, eps in dict.fromkeys((c.attack, c.eps) for c in results.cells if c.meta.task == task):
        sets = averages.sets((attack, eps))

        def numbers(model: str, dataset: str, at: Member = (attack, eps), sets: Sequence[str] = sets) -> dict[str, Replicates]:
            return _numbers(results, wanted, COMPARED[task], model, [dataset] if dataset else sets, at)

        here = []
        for dataset in [*averages.datasets, *([""] if len(averages.datasets) > 1 else [])]:
            for model in averages.models:
                one, other = numbers(reference, dataset), numbers(model, dataset) if model != reference else {}
                names = [name for name in one if name in other]
                keys = {name: wanted[name][1] if name in wanted else name for name in names}
                gaps = {name: difference(one[name], other[name], keys[name]) for name in names}
                ratios = {name: ratio(one[name], other[name], keys[name]) for name in names if name in RATIOS}
                if gaps:
                    on = [dataset] if dataset else sets
                    cells = [results.get(m, d, attack, eps) for m in (reference, model) for d in on]
                    flags = tuple(dict.fromkeys(flag for cell in cells if cell for flag in cell.flags))
                    clean = (attack, eps) == averages.clean_member
                    here.append(Contrast(attack, eps, clean, model, dataset, gaps, ratios, flags))
        for family in ([c for c in here if c.dataset], [c for c in here if not c.dataset]):
            _correct(family)
        found += here
    return found


def _numbers(
    results: Results, wanted: dict[str, tuple[str, str]], usual: Sequence[str], model: str, datasets: Sequence[str], at: Member
) -> dict[str, Replicates]:
    """Number -> what one model has of it on these datasets, averaged; without those that it lacks on one of them."""
    cells = [results.get(model, dataset, *at) for dataset in datasets]
    held = [cell for cell in cells if cell is not None]
    if not held or len(held) < len(cells):
        return {}
    parts = {name: [cell.numbers for cell in held] for name in usual}
    parts |= {title: [cell.asked[spec] for cell in held if spec in cell.asked] for title, (spec, _) in wanted.items()}
    keys = {name: name for name in usual} | {title: name for title, (_, name) in wanted.items()}
    whole = {n: p for n, p in parts.items() if len(p) == len(held) and all(keys[n] in one.values for one in p)}
    return {name: average(found) for name, found in whole.items()}


def _correct(family: Sequence[Contrast]) -> None:
    for name in dict.fromkeys(name for contrast in family for name in contrast.differences):
        members = [contrast for contrast in family if name in contrast.differences]
        for contrast, p in zip(members, holm([c.differences[name].p for c in members]), strict=True):
            contrast.adjusted[name] = float(p)


# -- in words ----------------------------------------------------------------------------------------------------------
def sentences(results: Results, found: Iterable[Contrast], names_of: Sequence[str] = COMPARED[SINGLE]) -> list[str]:
    """What a paper would write of each contrast: ``ucat against clip, under pgd at 1/255, on average: ECE 29 % lower [24, 34]``.

    Args:
        names_of: the numbers that are told, each unless a flag says that the cell has none.
    """
    assert results.versus is not None
    names, lines = results.labels, []
    for contrast in found:
        where = f"on {names['dataset'][contrast.dataset]}" if contrast.dataset else "on average"
        under = "clean" if contrast.clean else f"under {names['attack'][contrast.attack]} at {contrast.eps}"
        valid = [name for name in names_of if name in contrast.differences and is_valid(name, contrast.flags)]
        told = [_told(contrast, name) for name in valid]
        head = f"{names['model'][contrast.model]} against {names['model'][results.versus]}"
        lines.append(f"{head}, {under}, {where}: {'; '.join(told)}.")
    return lines


def _told(contrast: Contrast, name: str) -> str:
    gap, title = contrast.differences[name], word(name).short
    scale, unit = (100, " points") if word(name).unit == "fraction" else (1, "")
    p = contrast.adjusted[name]
    tested = f"no test below {FEWEST} samples" if p != p else f"p {p_text(p)}"
    if name in contrast.ratios and not np.isnan(contrast.ratios[name].value):
        return f"{title} {change_text(contrast.ratios[name])} ({tested})"
    bounds = "" if np.isnan(gap.lo) else f" [{scale * gap.lo:+.1f}, {scale * gap.hi:+.1f}]"
    return f"{title} {scale * gap.value:+.1f}{unit}{bounds} ({tested})"


def change_text(found: Interval) -> str:
    """A ratio as a change in per cent: ``29 % lower [24, 34]``; limits on the other side of no change are negative.

    >>> change_text(Interval(0.71, 0.66, 0.76)), change_text(Interval(1.1, 0.95, 1.25))
    ('29 % lower [24, 34]', '10 % higher [-5, 25]')
    """
    lower = found.value <= 1
    value, low, high = (100 * (1 - x if lower else x - 1) for x in found)
    bounds = "" if np.isnan(low) else f" [{min(low, high):.0f}, {max(low, high):.0f}]"
    return f"{value:.0f} % {'lower' if lower else 'higher'}{bounds}"


def p_text(p: float) -> str:
    """``= 0.012``, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


# -- the layout --------------------------------------------------------------------------------------------------------
def versus_tables(results: Results) -> list[Table]:
    """The layout `versus`: one table per radius, the clean images first; none where no model was named."""
    return [*_tables(results, SINGLE), *_tables(results, MULTI)] if results.versus else []


def _tables(results: Results, task: str) -> Iterator[Table]:
    assert results.versus is not None
    averages, found = Averages(results, task), contrasts(results, results.versus, task)
    names, labels = list(dict.fromkeys(name for contrast in found for name in contrast.differences)), results.labels
    radii, orders = {eps: i for i, eps in enumerate(results.values("eps"))}, results.values("attack")
    for clean, eps in sorted({(c.clean, c.eps) for c in found}, key=lambda pair: (not pair[0], radii[pair[1]])):
        here = [contrast for contrast in found if (contrast.clean, contrast.eps) == (clean, eps)]
        rows, last = list[Row](), ("", "")
        for contrast in sorted(here, key=lambda c: (orders.index(c.attack), averages.models.index(c.model))):
            where = labels["dataset"].get(contrast.dataset, "Average")
            label = (labels["attack"][contrast.attack], labels["model"][contrast.model], where)
            entries = [entry for name in names for entry in _entries(contrast, name)]
            rows.append(Row(label, tuple(entries), rule=label[:2] != last and bool(rows)))
            last = label[:2]
        members = list(dict.fromkeys((contrast.attack, contrast.eps) for contrast in here))
        groups = {labels["attack"][attack]: [(attack, radius)] for attack, radius in members}
        what = f"Every model less {labels['model'][results.versus]}, {'clean' if clean else f'at radius {eps}'}, paired"
        short = f"{what} on the same samples [95 % interval]; Average: {over(averages, groups).removeprefix('averages ')}."
        short += f" {missing(results, averages, members)}".rstrip() + (f" {_bins(results)}" if set(names) & set(BINNED) else "")
        cells = [c.meta for c in results.cells if (c.attack, c.eps) in members and c.meta.task == task]
        caption = f"{short} {HOW} {protocol(cells, results.runs[0].header.get('versions', {}) if results.runs else {})}"
        remarks = tuple(sentences(results, [contrast for contrast in here if not contrast.dataset] or here, COMPARED[task]))
        name = f"versus{'' if task == SINGLE else '-multi'}-{'clean' if clean else eps.replace('/', '-')}"
        keys = {title: name for (_, name), title in column_names(results, COMPARED[task]).items()}
        columns = tuple(column for title in names for column in _columns(title, keys.get(title, title)))
        heads = ("Attack", "Model", "Data set")
        yield Table(name, caption, heads, columns, tuple(rows), flag_meanings(), short=short, remarks=remarks)


HOW = (
    "p: of no difference (paired test; McNemar's for shares of samples), Holm-corrected within an attack and a column over"
    f" models and data sets, averages among themselves; †: below {ALPHA:g}. No p: fewer than {FEWEST} samples and no exact"
    " test. Change: the ratio of the errors less 1; its interval is that of the true errors, which noise in the bins does"
    " not enlarge."
)


def _bins(results: Results) -> str:
    return f"Calibration errors are over {results.bins} bins."


def _columns(name: str, key: str) -> list[Column]:
    about, percent = word(key), word(key).unit == "fraction"
    title = about.short if name == key else name
    kept = [Column("difference", title, percent, about.better, True, 2 if percent else 3, metric=name)]
    kept += [Column("p", title, False, "", False, 4, least=True)]
    return kept + ([Column("change", title, True, about.better, True, 1, metric=name)] if name in RATIOS else [])


def _entries(contrast: Contrast, name: str) -> list[Entry]:
    gap, p = contrast.differences.get(name), contrast.adjusted.get(name, float("nan"))
    empty = [Entry(), Entry(), *([Entry()] if name in RATIOS else [])]
    if gap is None:
        return empty
    flags, sure = concerning(name, contrast.flags), p < ALPHA and is_valid(name, contrast.flags)
    found = [Entry(*gap[:3], flags, "significant" if sure else "", True), Entry(p)]
    if name in RATIOS:
        value, low, high = contrast.ratios[name]
        found.append(Entry(value - 1, low - 1, high - 1, flags, signed=True))
    return found
