"""One worker at work: it claims what is missing, and has three things in hand at a time, each in its own thread.

While one unit is attacked, the next is read and given its start noise, where reading takes long enough to be worth a claim
ahead; what was attacked is measured and written behind. One unit waits ahead at most, and two behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..cell import Cell
from ..records.store import Run, claim_name
from .events import CellFailed, Event, Working
from .later import Behind, Later
from .loading import Loaded
from .plan import Plan
from .walk import Stretch, stretches
from .worker import Attacked, Worker, failed

#: Seconds between two looks at shards that others hold.
POLL = 1.0
#: Seconds after which a shard that is still being read is given up: its storage, or a decoder, hangs.
HANGS = 1800.0
#: How long an interrupted worker waits for a read that is under way: a thread inside torch aborts a process that ends.
GRACE = 10.0
#: Reading that takes less than this share of an attack's time is not worth a claim ahead.
WORTH = 0.02


@dataclass(eq=False)
class Unit:
    """Shards of one cell that are attacked together, and this worker's claims on them."""

    cell: Cell
    shards: tuple[int, ...]
    claims: ExitStack
    lives: tuple[Callable[[], None], ...]
    passes: int = -1  #: through the model so far; the first sign of life comes before the first pass


#: In the place of a unit: everything begun must be written before the next look at what is missing.
PAUSE = None


def work(worker: Worker, run: Run) -> Iterator[Event]:
    """Compute shards until none is missing; yields an event after each.

    Cells that nobody works on come first, so that workers load different models. Shards that others hold are waited for,
    and computed here should their worker die or hang. A cell that fails is left unfinished, with one event; so are all
    cells of a dataset with images that do not decode.
    """
    yield from Shift(worker, run).work()


@dataclass
class Shift:
    """One worker on one run."""

    worker: Worker
    run: Run
    behind: Behind[list[Event]] = field(default_factory=Behind)
    ahead: bool = False  #: whether the next unit is read while one is attacked
    reading: deque[float] = field(default_factory=lambda: deque(maxlen=8))  #: seconds that units took to read, lately
    held: dict[Unit, None] = field(default_factory=dict)
    read: Later[tuple[Loaded, float]] | None = None  #: the last read that was begun
    told: float = field(default_factory=time.monotonic)  #: when it was last told how far a unit is

    def work(self) -> Iterator[Event]:
        """See `work`."""
        units = self._units()
        try:
            for unit in units:
                paused, loading = unit is PAUSE, unit and self._load(unit)
                while loading:  # as long as the next unit is read while one is attacked
                    attacked, later = loading
                    ready = self._ready(attacked, later)
                    following = next(units, PAUSE) if self.ahead else PAUSE
                    paused, loading = self.ahead and following is PAUSE, following and self._load(following)
                    yield from self._through(attacked, ready)
                if paused:
                    yield from self._told(self.behind.drain())
            yield from self._told(self.behind.drain())
        finally:
            self.behind.close()
            if self.read is not None:
                self.read.wait(GRACE)
            for unit in list(self.held):
                self._let_go(unit)

    # -- what to do ------------------------------------------------------------------------------------------------
    def _units(self) -> Iterator[Unit | None]:
        """Claimed units until nothing is missing, with a pause before every look at what still is."""
        worker, run = self.worker, self.run
        todo = stretches(worker.plan.cells, worker.pixels.memory, worker.first)
        while todo and worker.alive():
            idle = True
            for polite in (True, False):
                for stretch in todo:
                    in_work = {name.rpartition("-")[0] for name in run.claims.held()} if polite else set()
                    if in_work.isdisjoint(cell.id for cell in stretch.cells):
                        for unit in self._claimed(stretch):
                            idle = False
                            yield unit
            yield PAUSE
            known = run.failures()
            cells = {cell.id: cell for stretch in todo for cell in stretch.cells}
            lacking = {name for name, cell in cells.items() if name not in known and run.missing(cell)}
            left = [stretch.of(cell for cell in stretch.cells if cell.id in lacking) for stretch in todo]
            todo = [stretch for stretch in left if stretch.cells]
            if todo and idle:
                time.sleep(POLL)

    def _claimed(self, stretch: Stretch) -> Iterator[Unit]:
        """The shards of a stretch that are missing and not held: each at all radii before the next."""
        lists = {cell.id: deque(shard for shard in self.run.missing(cell) if shard in stretch) for cell in stretch.cells}
        while any(lists.values()):
            for cell in stretch.cells:
                if not self.worker.alive():
                    return
                if cell.id in self.run.failures():
                    lists[cell.id].clear()
                if unit := self._claim(cell, lists[cell.id]):
                    yield unit

    def _claim(self, cell: Cell, shards: deque[int]) -> Unit | None:
        """Take as many of these shards as are attacked together."""
        claims, taken, lives = ExitStack(), list[int](), list[Callable[[], None]]()
        wanted = self.worker.sizes.shards(cell)
        while shards and len(taken) < wanted:
            shard = shards.popleft()
            if self.run.claim(cell, shard):
                lives.append(claims.enter_context(self.run.claims.renewing(claim_name(cell.id, shard))))
                taken.append(shard)
        if not taken:
            return None
        unit = Unit(cell, tuple(taken), claims, tuple(lives))
        self.held[unit] = None
        return unit

    # -- one unit --------------------------------------------------------------------------------------------------
    def _load(self, unit: Unit) -> tuple[Unit, Later[tuple[Loaded, float]]]:
        self.read = Later(lambda: self.worker.loader.load(unit.cell, unit.shards, self.beat))
        return unit, self.read

    def _ready(self, unit: Unit, later: Later[tuple[Loaded, float]]) -> Loaded | CellFailed:
        """What was read, waited for; or why it could not be."""
        cell = unit.cell
        if not later.wait(HANGS):
            what = f"dataset '{cell.dataset}': reading shard {unit.shards[0]} has taken {HANGS:g} s and does not end"
            reason = f"{what}; look after its storage, then run the same command again"
            return CellFailed(cell.id, cell.title, reason, cell.dataset, hangs=True)
        try:
            loaded, seconds = later.result()
        except Exception as error:
            return failed(cell, error)
        self.reading.append(seconds)
        return loaded

    def _through(self, unit: Unit, ready: Loaded | CellFailed) -> Iterator[Event]:
        """Attack a unit and pass it on to be written; yields what happened meanwhile."""
        if unit.cell.id in self.run.failures():
            self._let_go(unit)
            return
        outcome: Attacked | CellFailed = ready if isinstance(ready, CellFailed) else self._attacked(unit, ready)
        if isinstance(outcome, CellFailed):
            self._let_go(unit)
            yield give_up(self.worker.plan, self.run, outcome)
        else:
            self.ahead = max(self.reading) >= WORTH * outcome.seconds
            yield from self._told(self.behind.put(lambda: self._written(unit, outcome)))

    def _attacked(self, unit: Unit, loaded: Loaded) -> Attacked | CellFailed:
        try:
            return self.worker.attack(unit.cell, loaded, lambda: self._passing(unit))
        except Exception as error:
            return failed(unit.cell, error)

    def _written(self, unit: Unit, attacked: Attacked) -> list[Event]:
        try:
            computed = attacked.measured()
        except Exception as error:
            return [failed(unit.cell, error)]
        else:
            return [one.write(self.run, unit.cell, shard) for shard, one in zip(unit.shards, computed)]
        finally:
            self._let_go(unit)

    def _told(self, written: Iterator[list[Event]]) -> Iterator[Event]:
        for events in written:
            for event in events:
                yield give_up(self.worker.plan, self.run, event) if isinstance(event, CellFailed) else event

    # -- claims ----------------------------------------------------------------------------------------------------
    def beat(self) -> None:
        """A sign of life for all claims that this worker holds."""
        for unit in tuple(self.held):
            for life in unit.lives:
                life()

    def _passing(self, unit: Unit) -> None:
        """Before every pass of a unit: a sign of life; and about once a second, how far it is."""
        self.beat()
        unit.passes += 1
        now, cell, worker = time.monotonic(), unit.cell, self.worker
        if now - self.told > 1:
            self.told = now
            batches = -(-sum(map(cell.rows, unit.shards)) // worker.sizes.of(cell))
            worker.live(Working(worker.number, cell.id, unit.shards[0], unit.passes, batches))

    def _let_go(self, unit: Unit) -> None:
        self.held.pop(unit, None)
        unit.claims.close()


def give_up(plan: Plan, run: Run, failure: CellFailed) -> CellFailed:
    """Keep workers from trying a cell again; and where images are to blame, all unfinished cells of their dataset."""
    for cell in plan.cells:
        if cell.id == failure.cell or (failure.dataset and cell.dataset == failure.dataset and run.missing(cell)):
            run.fail(cell.id, failure.reason)
    return failure
