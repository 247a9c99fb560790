"""The page of one model: its card, who checked it, its numbers everywhere, and its reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..report.words import flag_meanings
from .card import is_link
from .diagram import diagram
from .elements import Html, element, page
from .nouns import NAMES, Board, Column, Contender, Value
from .protocol import UNATTACKED
from .site import badge, heading, letter, limits, percent, shorten

#: Field of a card -> its title on the page.
FIELDS = {
    "authors": "Authors", "paper": "Paper", "training_data": "Training data", "licence": "Licence", "link": "Weights or code",
}  # fmt: skip


def model_page(one: Contender, boards: Sequence[Board]) -> str:
    """The page of a submitted model."""
    mine = [(board, column, column.values[one.key]) for board in boards for column in board.columns if one.key in column.values]
    flags = dict.fromkeys(flag for _, _, value in mine if value.cell for flag in value.cell.flags)
    meanings = flag_meanings()
    notes = [[element("dt", flag), element("dd", meanings.get(flag, ""))] for flag in flags]
    back = element("a", "All tables", href="../index.html")
    drawn = element("div", list(_diagrams(one, boards)), class_="diagrams")
    about = element("p", "Blue: accuracy of each bin of confidence. Orange: its distance to the mean confidence.", class_="lead")
    return page(
        one.card.name,
        element("header", element("p", back), element("h1", one.card.name), element("p", badge(one))),
        element("main", element("section", element("dl", list(_facts(one)))),
                element("section", element("h2", "Numbers"), _numbers(one, boards)),
                element("section", element("h2", "Validity flags"), element("dl", notes)) if notes else None,
                element("section", element("h2", "Reliability, clean and attacked"), about, drawn)),
    )  # fmt: skip


def _facts(one: Contender) -> Iterator[Html]:
    submission = one.submission
    assert submission is not None
    told: dict[str, str | Html] = {title: getattr(one.card, key) or "not stated" for key, title in FIELDS.items()}
    for title in ("Paper", "Weights or code"):
        if is_link(text := told[title]):
            told[title] = element("a", text, href=text, rel="nofollow noopener noreferrer")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(submission.versions.items()))
    told |= {"In the run": one.card.model, "Submitted by": submission.card.submitter or "not stated", "File": submission.file}
    told |= {"Content": submission.content, "Records": submission.records, "Versions": versions or "not stated"}
    if signoff := one.checked or submission.signoff:
        least = f"at least {100 * signoff.at_least:.1f} % of {signoff.population} records"
        sure = f"{least} come out again, with {100 * signoff.confidence:g} % confidence"
        told |= {"Follows": sure if signoff.samples else "nothing", "Check": signoff.command}
        lines = (*signoff.disagree, *signoff.refuted, *signoff.unchecked)
        told |= {f"Found {at}": line for at, line in enumerate(lines[:10], 1)}
        for part in signoff.stronger:
            told[part.what] = f"{100 * part.value:.1f} % [{100 * part.lo:.1f}, {100 * part.hi:.1f}] of {part.samples} drawn"
    for title, text in told.items():
        yield element("dt", title)
        yield element("dd", text)


def _numbers(one: Contender, boards: Sequence[Board]) -> Html:
    heads = ("Table", "Column", "Samples", "Accuracy %", "Rank", "Calibration %", "Rank", "Flags")
    rows = []
    for board in boards:
        for at, column in enumerate(board.columns):
            value = column.values.get(one.key)
            if value is None or value.cell is None or (column.kind in UNATTACKED and _told_before(boards, board, column)):
                continue
            cells = [element("td", f"{letter(at)} {shorten(column.title)}", class_="text"), element("td", str(value.cell.n))]
            for number, standing in zip((value.accuracy, value.calibration), value.ranks):
                cells.append(element("td", element("b", percent(number.value)), limits(number)) if number else element("td"))
                cells.append(element("td", standing.rank if standing else ""))
            cells.append(element("td", ", ".join(value.cell.flags), class_="text"))
            rows.append(element("tr", element("th", heading(board), scope="row"), cells))
    texts = ("Table", "Column", "Flags")
    head = element("tr", [element("th", text, scope="col", class_="text" if text in texts else None) for text in heads])
    table = element("table", element("thead", head), element("tbody", rows))
    return element("div", table, class_="scroll", tabindex=0)


def _told_before(boards: Sequence[Board], board: Board, column: Column) -> bool:
    """Whether a clean column stood in an earlier table of the same data set."""
    before = [c for b in boards[: boards.index(board)] if b.dataset == board.dataset for c in b.columns]
    return column.kind == "clean" and any(column.protocol == other.protocol for other in before)


def _diagrams(one: Contender, boards: Sequence[Board]) -> Iterator[Html]:
    """Clean, and the leading attack of each threat model, for every data set with one label per image."""
    for board in boards:
        if "ece" not in NAMES[board.task]:
            continue
        clean = [c for c in board.columns if c.kind == "clean" and one.key in c.values and not _told_before(boards, board, c)]
        attacked = [c for c in board.columns if c.kind != "clean" and one.key in c.values and c.values[one.key].calibration]
        for column in [*clean[:1], *attacked[:1]]:
            value: Value = column.values[one.key]
            if value.cell is not None:
                what = "clean" if column.kind == "clean" else f"{shorten(column.title)}, {shorten(board.threat)}"
                where = f"{shorten(board.dataset)}, {what}"
                yield diagram(value.cell.details.bins, where)


