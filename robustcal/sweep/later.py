"""Work in threads of its own: what comes ahead of an attack and what follows behind it. Bounded; a failure is never lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """The result of a call in a thread, which does not keep the process alive if the call hangs."""

    def __init__(self, work: Callable[[], T]):
        self._work = work
        self._value: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most so long; whether it is done."""
        self._thread.join(seconds)
        return self.done

    def result(self) -> T:
        """The result, waited for.

        Raises:
            what the call raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


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
        self._calls.append(Later(lambda: _after(before, work)))
        while self._calls and (len(self._calls) > self.room or self._calls[0].done):
            yield self._calls.popleft().result()

    def drain(self) -> Iterator[T]:
        """Wait for all of them; yields their results."""
        while self._calls:
            yield self._calls.popleft().result()

    def close(self) -> None:
        """Wait until nothing is at work; results and errors are dropped."""
        for call in self._calls:
            call.wait()
        self._calls.clear()


def _after(before: Later[T] | None, work: Callable[[], T]) -> T:
    if before is not None:
        before.result()
    return work()
