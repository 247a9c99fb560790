"""Work in threads of its own: what comes ahead of an attack and what follows behind it. Bounded; a failure is never lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(futures.Future[T]):
    """The result of a call in a thread, which does not keep the process alive if the call hangs."""

    def __init__(self, work: Callable[[], T]):
        super().__init__()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self.set_result(work())
        except BaseException as error:  # raised where the result is asked for
            self.set_exception(error)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most so long; whether there is a result or an error."""
        futures.wait([self], seconds)
        return self.done()


class Behind(Generic[T]):
    """Calls that are made one after the other in the background, at most `room` of them waiting or at work."""

    def __init__(self, room: int = 2):
        self.room = room
        self._calls: deque[Later[T]] = deque()

    def put(self, work: Callable[[], T]) -> Iterator[T]:
        """Add a call; waits for the oldest where there is no room. Yields the results of those that are done, in order.

        Raises:
            what a call raised; those after it are not made.
        """
        before = self._calls[-1] if self._calls else None

        def after() -> T:
            if before is not None:
                before.result()
            return work()

        self._calls.append(Later(after))
        while self._calls and (len(self._calls) > self.room or self._calls[0].done()):
            yield self._calls.popleft().result()

    def drain(self) -> Iterator[T]:
        """Wait for all of them; yields their results."""
        while self._calls:
            yield self._calls.popleft().result()

    def close(self) -> None:
        """Wait until nothing is at work; results and errors are dropped."""
        futures.wait(self._calls)
        self._calls.clear()
