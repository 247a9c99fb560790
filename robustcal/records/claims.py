"""Who computes what: one small file per shard in work, so that processes that share nothing but a folder share the work.

A claim belongs to a process. It is stale, and anybody may take it over, once that process is gone (same host), or has
not renewed it for `seconds` (another host, or a worker that hangs). Times are those of the file system's own clock, so
that clocks of hosts may differ. Taking over too early costs time and nothing else: both compute the same records, and
the last rename wins.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..types import UserError

SECONDS = 300.0
DRIVER = "driver"
#: A claim without an owner was left by a process killed between creating the file and writing into it.
OWNERLESS_SECONDS = 10.0


class Claims:
    """The claims of one run directory. `seconds`: how long a claim lasts without being renewed."""

    def __init__(self, folder: Path, seconds: float = SECONDS):
        self.folder, self.seconds = folder, seconds
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}

    def take(self, name: str) -> bool:
        """Claim `name`; False if a live worker holds it. Raises `UserError` if the folder cannot be written."""
        path = self.folder / name
        try:
            if self._create(path):
                return True
            if not self._stale(path):
                return False
            # Exactly one thief wins the rename; the others find nothing to rename.
            grave = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}.stale")
            os.rename(path, grave)
            grave.unlink(missing_ok=True)
            return self._create(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"cannot write to '{self.folder}': {error.strerror}; finished shards are kept") from None

    def renew(self, name: str) -> None:
        """Say that the worker of an own claim is alive."""
        if self._mine(name):
            with suppress(OSError):  # taken over meanwhile, or the folder is gone: the shard's rename will tell
                os.utime(self.folder / name)

    def release(self, name: str) -> None:
        """Give an own claim up; one that was taken over meanwhile stays."""
        if self._mine(name):
            (self.folder / name).unlink(missing_ok=True)

    def held(self) -> set[str]:
        """The names under claim now, live or stale."""
        try:
            return {name for name in os.listdir(self.folder) if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    @contextmanager
    def renewing(self, name: str) -> Iterator[Callable[[], None]]:
        """Hold a claim that was taken; yields a function to call at every sign of life.

        A thread renews the claim as long as there was such a sign within the last `seconds`: the claim of a worker
        that hangs runs out although its process lives.
        """
        stop, life = threading.Event(), threading.Event()
        life.set()

        def renew() -> None:
            silent = 0
            while not stop.wait(self.seconds / 5):
                silent = 0 if life.is_set() else silent + 1
                life.clear()
                if silent < 5:
                    self.renew(name)

        threading.Thread(target=renew, daemon=True).start()
        try:
            yield life.set
        finally:
            stop.set()
            self.release(name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the claim on the run itself: for what is read and written again, by one driver at a time."""
        while not self.take(DRIVER):
            time.sleep(0.05)
        with self.renewing(DRIVER):
            yield

    def _mine(self, name: str) -> bool:
        try:
            return bool(json.loads((self.folder / name).read_text()) == self.owner)
        except (OSError, ValueError):
            return False

    def _create(self, path: Path) -> bool:
        try:
            with open(path, "x") as file:
                json.dump(self.owner, file)
        except FileExistsError:
            return False
        return True

    def _stale(self, path: Path) -> bool:
        text, age = path.read_text(), self.now() - path.stat().st_mtime
        try:
            owner = json.loads(text)
            host, pid = owner["host"], int(owner["pid"])
        except (ValueError, KeyError, TypeError):
            return age > OWNERLESS_SECONDS
        gone = host == socket.gethostname() and not _alive(pid)
        return gone or abs(age) > self.seconds  # a time far in the future is one of a clock that was set back

    def now(self) -> float:
        """The time by the file system's own clock, so that clock skew between hosts does not matter."""
        probe = self.folder / f".clock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


def claim_name(cell: str, shard: int) -> str:
    """The file name of a shard's claim."""
    return f"{cell}-{shard:05d}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
