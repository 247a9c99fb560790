"""Bootstrap resamples of samples, and the values of metrics under them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from ..metrics.weighted import Means, Weighted
from ..types import Records

#: Numbers in a chunk of resample counts, and the fewest rows of one: bounds the memory, keeps a chunk in the cache.
CHUNK, ROWS = 1_000_000, 16
#: Bytes of counts that `Resamples` keeps from one cell to the next.
KEEP = 128_000_000

Inputs = tuple[Records, ...]
Function = Callable[..., Mapping[str, float]]


class Drawn(NamedTuple):
    """Draws (R,) of a metric's values, and the plain bootstrap of names that are compared by it, see `Means.compared`."""

    draws: dict[str, np.ndarray]
    plain: dict[str, np.ndarray]



class Resamples:
    """How often each of `n` samples is drawn in each of `count` bootstrap resamples.

    The draws depend on (seed, key) only. With the sample ids as key, every cell on the same samples gets the same
    draws, so that differences between cells are paired, and cells on other samples get independent ones.
    """

    def __init__(self, n: int, count: int = 1000, seed: int = 0, key: str = ""):
        self.n, self.count, self.seed, self.key = n, count, seed, key
        self._kept: np.ndarray | None = None
        self._uses = 0

    @classmethod
    def of(cls, ids: Sequence[str] | np.ndarray, count: int = 1000, seed: int = 0) -> Resamples:
        """The resamples of samples with these ids, in this order."""
        return cls(len(ids), count, seed, hashlib.sha256("\0".join(map(str, ids)).encode()).hexdigest())

    def chunks(self) -> Iterator[np.ndarray]:
        """Counts (rows, n) float32, `count` rows altogether; nothing if there are no samples.

        They are kept from the second use on, if they fit in `KEEP`: many datasets are used once.
        """
        self._uses += 1
        rows = max(ROWS, CHUNK // max(self.n, 1))
        starts = range(0, self.count if self.n else 0, rows)
        if self._kept is not None:
            yield from (self._kept[start : start + rows].astype(np.float32) for start in starts)
            return
        keep = self._uses > 1 and self.count * self.n <= KEEP
        kept = np.empty((self.count, self.n), np.uint8) if keep else None
        key = hashlib.sha256(f"{self.seed}/{self.key}".encode()).digest()
        random = np.random.Generator(np.random.SFC64(list(key)))
        for start in starts:
            drawn = np.empty((min(rows, self.count - start), self.n), np.uint8)
            for row in drawn:
                row[:] = np.bincount(random.integers(0, self.n, self.n), minlength=self.n)
            if kept is not None:
                kept[start : start + rows] = drawn
            yield drawn.astype(np.float32)
        self._kept = kept


class Resampled(Mapping[str, np.ndarray]):
    """Records of one resample; a column is gathered when it is asked for."""

    def __init__(self, records: Records, index: np.ndarray):
        self.records, self.index = records, index

    def __getitem__(self, column: str) -> np.ndarray:
        return np.asarray(np.asarray(self.records[column])[self.index])

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def read_only(records: Records) -> dict[str, Any]:
    """The same records, whose arrays no metric can change in place: others are computed from them too."""
    views = {name: column.view() if isinstance(column, np.ndarray) else column for name, column in records.items()}
    for view in views.values():
        if isinstance(view, np.ndarray):
            view.flags.writeable = False
    return views


def values_and_draws(
    functions: Sequence[Function], inputs: Sequence[Inputs], resamples: Resamples
) -> tuple[list[Mapping[str, float]], list[Drawn]]:
    """Call each metric on its records and under every resample."""
    found = [function(*given) for function, given in zip(functions, inputs, strict=True)]
    dense = {i: value for i, value in enumerate(found) if is_dense(value)}
    stack = _centred(list(dense.values()))
    shifts: list[np.ndarray] = []
    parts: list[list[Any]] = [[] for _ in found]
    for counts in resamples.chunks():
        if dense:
            shifts.append(counts @ stack)
        for i, value in enumerate(found):
            if i not in dense:
                parts[i].append(_draw(value, functions[i], inputs[i], counts))
    drawn = [_join(value, part) for value, part in zip(found, parts, strict=True)]
    for i, draws in zip(dense, _dense_draws(list(dense.values()), shifts, resamples.n), strict=True):
        drawn[i] = draws
    return found, drawn


def is_dense(value: Mapping[str, float]) -> TypeGuard[Means]:
    """Whether a metric returned means of columns in an array."""
    return isinstance(value, Means) and isinstance(value.columns, np.ndarray)


def _draw(value: Mapping[str, float], function: Function, given: Inputs, counts: np.ndarray) -> Any:
    """One chunk of draws: resampled means of a sparse `Means`, else {name: (rows,)}."""
    if isinstance(value, Means):
        return np.asarray(counts @ value.columns, dtype=np.float64) / counts.shape[1]
    return value.draws(counts) if isinstance(value, Weighted) else _by_index(function, given, counts)


def _join(value: Mapping[str, float], parts: list[Any]) -> Drawn:
    if isinstance(value, Means):
        return Drawn(*value.drawn_and_plain(np.concatenate(parts))) if parts else Drawn({}, {})
    return Drawn({name: np.concatenate([_part(part, name) for part in parts] or [np.empty(0)]) for name in value}, {})


def _part(part: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return part[name] if name in part else np.full(len(next(iter(part.values()), [])), np.nan)


def _centred(additive: Sequence[Means]) -> np.ndarray:
    """Columns of all additive metrics side by side, (N, K) float32, minus their means: what keeps float32 exact."""
    width, n = sum(value.columns.shape[1] for value in additive), additive[0].n if additive else 0
    stack = np.empty((n, width), np.float32)
    start = 0
    for value in additive:
        stop = start + value.columns.shape[1]
        np.subtract(value.columns, value.means, out=stack[:, start:stop], casting="same_kind")
        start = stop
    return stack


def _dense_draws(additive: Sequence[Means], shifts: list[np.ndarray], n: int) -> Iterator[Drawn]:
    start = 0
    for value in additive:
        stop = start + value.columns.shape[1]
        parts = [part[:, start:stop].astype(np.float64) / n for part in shifts] or [np.empty((0, stop - start))]
        yield Drawn(*value.drawn_and_plain(value.means + np.concatenate(parts)))
        start = stop


def _by_index(function: Function, given: Inputs, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Call a plain metric on each resample; a name that it lacks on one is nan there."""
    values = []
    for row in counts:
        index = np.repeat(np.arange(len(row)), row.astype(np.int64))
        values.append(function(*(Resampled(records, index) for records in given)))
    names = dict.fromkeys(name for value in values for name in value)
    return {name: np.array([value.get(name, np.nan) for value in values], dtype=np.float64) for name in names}
