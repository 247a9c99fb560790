"""The layout `costs`: passes and seconds of every cell."""

from __future__ import annotations

from ..records.costs import seconds_of
from .evaluate import PASSES, Measured, Results
from .tables import Column, Entry, Row, Table

COLUMNS = tuple(
    Column(title, group, False, "", False, digits, metric=metric)
    for title, group, digits, metric in (
        ("images", "", 0, "n"), ("forward", "passes", 0, "forwards"), ("backward", "passes", 0, "backwards"),
        ("per image", "passes", 1, "passes_per_image"), ("all", "seconds", 2, "seconds"),
        ("per image", "seconds", 4, "seconds_per_image"),
    )
)  # fmt: skip


def cost_tables(results: Results) -> list[Table]:
    """One table: what each cell cost, and all of them together. Worst cases are made of cells and cost nothing."""
    cells = [cell for cell in results.cells if not cell.meta.members]
    known = {run.path: seconds_of(run.path) for run in results.runs}
    spent = [(cell, seconds(cell, known.get(cell.run.path, {}))) for cell in cells]
    rows = [Row((*results.labelled(cell)[1:], cell.eps, results.labelled(cell)[0]), entries(cell, took)) for cell, took in spent]
    if rows:
        columns = [[row.entries[i] for row in rows] for i in range(len(COLUMNS))]
        sums = [Entry(None if any(one.empty for one in column) else sum(one.value or 0 for one in column)) for column in columns]
        rows.append(Row(("all", "", "", ""), (*sums[:3], Entry(), sums[4], Entry()), rule=True))
    devices = dict.fromkeys(str(made.get("device")) for run in results.runs for made in run.header.get("invocations", []))
    short = "Passes through the model and seconds of each cell."
    caption = (
        f"{short} A pass is one image through the model, forward or backward, while the attack searches; judging is not counted."
        " Seconds are of one worker, for attack and judging, without loading; workers side by side slow one another."
        f" Empty: not measured. Device: {', '.join(devices) or 'unknown'}."
    )
    return [Table("costs", caption, ("Data set", "Attack", "Radius", "Model"), COLUMNS, tuple(rows), short=short)]


def seconds(cell: Measured, known: dict[str, dict[int, float]]) -> float | None:
    """Of all shards of a cell; None where one was not measured."""
    shards = known.get(cell.id, {})
    present = cell.run.present(cell.id)
    return sum(shards[shard] for shard in present) if present and present.keys() <= shards.keys() else None


def entries(cell: Measured, took: float | None) -> tuple[Entry, ...]:
    """A cell's numbers in the order of the columns."""
    forwards, backwards = (cell.passes.get(name) for name in PASSES)
    each = None if forwards is None or backwards is None else (forwards + backwards) / max(cell.n, 1)
    return tuple(map(Entry, (cell.n, forwards, backwards, each, took, None if took is None else took / max(cell.n, 1))))
