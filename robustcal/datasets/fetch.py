"""Fetching what a card needs: is its host there, one download at a time, archives checked against their sum."""

from __future__ import annotations

import contextlib
import fcntl
import urllib.error
import urllib.request
from collections.abc import Iterator

from ..types import UserError
from .card import Card, card_name
from .presence import advice, availability
from .root import data_root, offline

#: Seconds to wait for a host before the network counts as absent.
PATIENCE = 5


def missing(card: Card, split: str | None) -> bool:
    """Whether a split has to be fetched first.

    Raises:
        UserError: it is not here and cannot be fetched; says what to put where.
    """
    present, hint = availability(card, split)
    if not present and not can_fetch(card):
        raise UserError(f"dataset '{card_name(card)}' is not here: {hint}")
    return not present


def can_fetch(card: Card) -> bool:
    """Whether the host of the card's ``download`` address answers within `PATIENCE` seconds."""
    if offline() or "download" not in card:
        return False
    request = urllib.request.Request(card["download"], method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # the host answers; the download will tell what it thinks of the address
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the data root's download lock: several workers may want the same set at once."""
    data_root().mkdir(parents=True, exist_ok=True)
    with open(data_root() / ".download-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch_archive(card: Card, split: str | None) -> None:
    """Download and unpack the archive of a card that gives its ``download`` address and ``md5``.

    Raises:
        UserError: the download failed, or its checksum is another.
    """
    from torchvision.datasets.utils import download_and_extract_archive

    with one_at_a_time():
        if availability(card, split)[0]:  # another worker was faster
            return
        try:
            download_and_extract_archive(card["download"], str(data_root()), md5=card["md5"], remove_finished=True)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"dataset '{card_name(card)}' could not be fetched ({reason}); {advice(card)}") from None
