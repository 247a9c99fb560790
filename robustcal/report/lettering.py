"""Text in figures: signs that can be drawn, lines that fit, legends and tick labels with room for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextToPath

from .evaluate import Results

#: Of every figure; matplotlib brings it.
FONT = "DejaVu Sans"
#: Fonts with the scripts that it lacks, as systems call them; those that are installed are asked in this order.
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Heiti TC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans", "Nirmala UI",
    "Leelawadee UI", "Segoe UI", "Arial Unicode MS", "Unifont",
)  # fmt: skip
#: Size of a legend's and of a title's letters, in points.
LEGEND_SIZE, TITLE_SIZE = 7.5, 8.5
#: Widest line of a legend, in inches.
LEGEND_LINE = 2.4


@cache
def families() -> tuple[str, ...]:
    """The fonts of a figure, in the order in which a sign is looked for."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return (FONT, *(name for name in OTHERS if name in there))


@cache
def _signs() -> frozenset[int]:
    paths = (font_manager.findfont(font_manager.FontProperties(family=[name]), fallback_to_default=True) for name in families())
    return frozenset(sign for path in paths for sign in font_manager.get_font(path).get_charmap())


def drawable(text: str) -> str:
    """The text with signs that no font here has as their numbers, so that they are neither lost nor boxes.

    >>> drawable("Ours \U000f0000\U000f0001")
    'Ours [U+F0000 F0001]'
    """
    known = _signs() | {ord("\n")}
    runs = ("".join(run) if there else f"[U+{' '.join(f'{ord(sign):04X}' for sign in run)}]"
            for there, run in groupby(text, lambda sign: ord(sign) in known))  # fmt: skip
    return "".join(runs)


def name_of(results: Results, axis: str, whole: str) -> str:
    """The label of a model, data set or attack as a figure shows it."""
    return drawable(results.labels[axis].get(whole, whole))


@lru_cache(maxsize=4096)
def inches(text: str, size: float, weight: str = "normal") -> float:
    """Width of one line in letters of `size` points."""
    font = font_manager.FontProperties(family=list(families()), size=size, weight=weight)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def wrapped(text: str, width: float, size: float = TITLE_SIZE, weight: str = "normal", most: int = 0) -> str:
    """The text in lines no wider than `width` inches: broken at spaces and signs, within a word where there is none.

    Args:
        most: lines; the last one ends in ``…`` where the text has more. 0: as many as it takes.
    """
    lines = [""]
    for part in text.splitlines():
        for piece in _pieces(part, width, size, weight):
            if lines[-1] and inches((lines[-1] + piece).rstrip(), size, weight) > width:
                lines.append("")
            lines[-1] += piece
        lines.append("")
    lines = [line.rstrip() for line in lines[:-1]]
    if most and len(lines) > most:
        last = lines[most - 1]
        while last and inches(last + "…", size, weight) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return "\n".join(lines)


def _pieces(text: str, width: float, size: float, weight: str) -> Iterator[str]:
    for piece in re.findall(r"[^\s\-_/:,=]*[\s\-_/:,=]*", text):
        if inches(piece.rstrip(), size, weight) <= width:
            yield piece
        else:
            yield from piece


def legend(figure: Figure, axes: Sequence[Axes], own: bool = True) -> None:
    """One legend for all panels, below them, in as many columns as the figure has room for; the figure grows by its further rows.

    Args:
        own: the figure is ours; else the legend goes into the first of the caller's axes.
    """
    found = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels())}
    if not found:
        return
    width, height = figure.get_size_inches()
    texts = [wrapped(label, min(LEGEND_LINE, width - 0.75), LEGEND_SIZE) for label in found]
    if not own:
        axes[0].legend(found.values(), texts)
        return
    for rows in range(1, len(texts) + 1):
        columns = -(-len(texts) // rows)
        made = figure.legend(found.values(), texts, loc="outside lower center", ncols=columns)
        box = made.get_window_extent()
        if box.width <= 0.94 * figure.dpi * width or columns == 1:
            break
        made.remove()
    figure.set_size_inches(width, height + max(0.0, box.height / figure.dpi - 0.25))


def ticks(axes: Axes, places: Mapping[str, float]) -> None:
    """Names on the x axis: a tick for each, a label where there is room for it; the last and the first come before others.

    Args:
        places: name -> where it stands, ascending.
    """
    names, at = [*places], [*places.values()]
    figure = axes.get_figure(root=True)
    assert figure is not None
    wide = figure.get_size_inches()[0] * axes.get_position().width
    scale = max(wide, 0.1) / (1.1 * ((at[-1] - at[0]) or 1.0))  # inches a unit; 1.1: margins
    shown: list[int] = []
    for i in dict.fromkeys([len(at) - 1, 0, *range(len(at))]):
        needs = [(inches(names[i], 7) + inches(names[k], 7)) / 2 + 0.08 for k in shown]
        if all(abs(at[i] - at[k]) * scale >= need for k, need in zip(shown, needs)):
            shown.append(i)
    axes.set_xticks(at, [name if i in shown else "" for i, name in enumerate(names)])


@dataclass(frozen=True)
class Mark:
    """A text beside a point of a curve, in data units; `low` and `high` are the ends of the point's whisker."""

    text: str
    x: float
    y: float
    low: float
    high: float


def beside(axes: Axes, marks: Sequence[Mark], size: float = 6) -> None:
    """Write each text where it meets no other text and no whisker, beside its point; one without such a place is left out."""
    axes.autoscale_view()
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = axes.transData.transform([(m.x, height) for m in marks for height in (m.low, m.high, m.y)]) * 72 / figure.dpi
    ends = points.reshape(-1, 3, 2)
    taken = [(x - 2, min(low, y - 3), x + 2, max(high, y + 3)) for (x, low), (_, high), (_, y) in ends]
    frame = axes.bbox.get_points().ravel() * 72 / figure.dpi
    for mark, (x, y) in zip(marks, ends[:, 2]):
        wide = 72 * inches(mark.text, size)
        for right, up in ((3, 3), (-3 - wide, 3), (3, -3 - size), (-3 - wide, -3 - size)):
            box = (x + right, y + up, x + right + wide, y + up + size)
            inside = frame[0] < box[0] and frame[1] < box[1] and box[2] < frame[2] and box[3] < frame[3]
            if inside and not any(a < box[2] and box[0] < c and b < box[3] and box[1] < d for a, b, c, d in taken):
                axes.annotate(mark.text, (mark.x, mark.y), xytext=(right, up), textcoords="offset points", fontsize=size)
                taken.append(box)
                break


def height_of(texts: Sequence[str], size: float = TITLE_SIZE) -> float:
    """Inches that the tallest of several broken texts takes beyond one line."""
    return max((text.count("\n") for text in texts), default=0) * size * 1.2 / 72
