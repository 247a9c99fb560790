"""The first page of a leaderboard: all tables, with the protocol of every column under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from ..metrics.concerns import concerning
from ..records.signoff import SignOff
from ..report.stats import Interval
from ..report.words import word
from .elements import Html, element, page
from .nouns import NAMES, Board, Column, Contender, Value
from .protocol import differing
from .ranks import ALPHA, Standing

#: Verdict of a sign-off -> how a row is filtered, and its colour.
STATES = {"holds": ("yes", "good"), "refuted": ("refuted", "bad"), "not checked": ("part", "open")}
#: How to read the page, a sentence each.
HOW = (
    "Every number was computed here from one record per sample; 95 % intervals in small print. A column holds numbers of one"
    " protocol: attack and its version, return rule, resolution, split, prompts, samples. What differs between columns stands"
    " under each table.",
    "Bold: no model of the column is significantly better. Small letters: models that share one cannot be told apart in that"
    " column. A rank is the range of places a model can"
    f" have (paired tests on the same samples, for accuracy McNemar's exact one; Holm's correction over all pairs,"
    f" {100 * ALPHA:g} %).",
    "An exclamation mark is a validity flag that makes the number doubtful; the model's page says which, and what it means.",
    "Checked: whoever runs this board attacked samples of the submission again and compared them with its records. What a"
    " submission says of itself is marked so. Published rows are numbers from papers: no record stands behind them, so they"
    " have no interval and no rank.",
)


def index(title: str, boards: Sequence[Board], contenders: Mapping[str, Contender]) -> str:
    """The page with all tables."""
    count = len({c.submission.content for c in contenders.values() if c.submission})
    published = sum(c.submission is None for c in contenders.values())
    parts = [(len(contenders) - published, "model"), (count, "submission"), (len(boards), "table")]
    lead = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in parts)
    lead += f"; {published} published rows that nobody here checked" if published else ""
    titles = dict.fromkeys(c.card.paper for c in contenders.values() if c.submission is None)
    papers = element("p", f"Published rows are of: {'; '.join(titles)}.") if titles else None
    contents = element("nav", element("ul", [_entry(at, board) for at, board in enumerate(boards)]), aria_label="Tables")
    return page(
        title,
        element("header", element("h1", title), element("p", lead + ".", class_="lead")),
        element("main", element("form", id="controls", class_="controls", autocomplete="off"),
                contents if len(boards) > 1 else None,
                [_section(at, board, contenders) for at, board in enumerate(boards)],
                element("section", element("h2", "How to read this"), [element("p", text) for text in HOW], papers)),
        script="board.js",
    )  # fmt: skip


def heading(board: Board) -> str:
    """What a table is of."""
    return f"{shorten(board.dataset)}, {shorten(board.threat)}"


def shorten(text: str, most: int = 80) -> str:
    """A name of a stranger in so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def letter(at: int) -> str:
    """A, B, ... Z, A1, B1 ...: what a column is called."""
    return ascii_uppercase[at % 26] + (str(at // 26) if at >= 26 else "")


def _entry(at: int, board: Board) -> Html:
    return element("li", element("a", heading(board), href=f"#t{at}"))


def _section(at: int, board: Board, contenders: Mapping[str, Contender]) -> Html:
    names = NAMES[board.task]
    titles = [_title(at, board.columns) for at in range(len(board.columns))]
    top = [element("th", "Model", rowspan=2, scope="col"), [element("th", text, colspan=2, scope="colgroup") for text in titles]]
    below = [
        element("th", element("button", f"{word(name).short} %", type="button", data_better=word(name).better), scope="col")
        for _ in board.columns for name in names
    ]  # fmt: skip
    rows = [_row(contenders[key], board.columns) for key in board.rows]
    table = element("table", element("thead", element("tr", top), element("tr", below)), element("tbody", rows))
    return element(
        "section", element("h2", heading(board)), element("div", table, class_="scroll", tabindex=0), _protocols(board),
        id=f"t{at}", class_="board", data_set=shorten(board.dataset), data_threat=shorten(board.threat),
    )  # fmt: skip


def _title(at: int, columns: Sequence[Column]) -> list[Html | str | None]:
    """The heading of a column: its attack, and in what it is unlike the first one of the same attack."""
    column, first = columns[at], next(i for i, c in enumerate(columns) if _attack(c) == _attack(columns[at]))
    unlike = differing([columns[first].protocol, column.protocol])
    note = element("small", f"unlike {letter(first)}: {', '.join(unlike)}") if unlike else None
    return [element("b", letter(at)), f" {shorten(column.title)}", note]


def _attack(column: Column) -> str:
    return column.protocol.get("attack", "") + column.kind


def _row(one: Contender, columns: Sequence[Column]) -> Html:
    name = element("a", one.card.name, href=f"models/{one.key}.html") if one.submission else one.card.name
    cells = [cell for column in columns for cell in _pair(column.values.get(one.key))]
    state = "published" if one.submission is None else STATES[one.checked.verdict][0] if one.checked else "no"
    whose = one.card.authors or one.source
    head = element("th", name, element("small", whose) if whose else None, element("small", badge(one)), scope="row")
    return element("tr", head, cells, data_checked=state)


def badge(one: Contender) -> Html:
    """What is known of who looked again at a row's records."""
    if one.submission is None:
        return element("span", "published, unverified", class_="open")
    if one.checked:
        return element("span", words_of(one.checked), class_=STATES[one.checked.verdict][1])
    if one.submission.signoff:
        return element("span", f"says of itself: {words_of(one.submission.signoff)}", class_="open")
    return element("span", "not checked", class_="open")


def words_of(signoff: SignOff) -> str:
    """The badge of a sign-off, and what else it found."""
    more = {"holds": "", "refuted": "; refuted", "not checked": "; not all could be looked at"}
    return signoff.badge + more[signoff.verdict]


def _pair(value: Value | None) -> list[Html]:
    if value is None:
        return [element("td"), element("td")]
    flags = tuple(value.cell.flags) if value.cell else ()
    marks = [", ".join(concerning(name, flags)) for name in (NAMES[value.cell.meta.task] if value.cell else ("", ""))]
    signs = [element("abbr", "!", title=mark, class_="flag") if mark else None for mark in marks]
    return [_number(value.accuracy, value.ranks[0], signs[0]), _number(value.calibration, value.ranks[1], signs[1])]


def _number(number: Interval | None, standing: Standing | None, mark: Html | None) -> Html:
    if number is None or number.value != number.value:
        return element("td")
    place = element("i", standing.rank, element("sup", standing.groups)) if standing else None
    best = "best" if standing and standing.first == 1 else None
    text = element("b", percent(number.value))
    return element("td", text, mark, limits(number), place, class_=best, data_v=f"{number.value:.5g}")


def percent(value: float) -> str:
    """A fraction in percent, one decimal."""
    return f"{100 * value:.1f}"


def limits(number: Interval) -> Html | None:
    """The limits of a number in small print."""
    return element("small", f"{percent(number.lo)}–{percent(number.hi)}") if number.lo == number.lo else None


def _protocols(board: Board) -> Html:
    fields = differing([column.protocol for column in board.columns])
    shared = [[element("dt", name), element("dd", text)] for name, text in board.shared.items()]
    heads = [element("th", name, scope="col", class_="text") for name in fields]
    head = element("tr", element("th", "Column", scope="col"), heads)
    rows = [
        element("tr", element("th", element("b", letter(at)), f" {shorten(column.title)}", scope="row"),
                [element("td", column.protocol.get(name, "–"), class_="text") for name in fields])
        for at, column in enumerate(board.columns)
    ]  # fmt: skip
    differs = element("div", element("table", element("thead", head), element("tbody", rows)), class_="scroll", tabindex=0)
    title = element("summary", "Protocol: what all columns share, and what differs")
    return element("details", title, element("dl", shared), differs if fields else None)
