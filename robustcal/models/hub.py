"""Published weights from the Hugging Face hub: from its cache, else downloaded, else one clear line why not."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..types import UserError

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def fetch(repository: str, names: Sequence[str], wanted_by: str) -> Path:
    """The first of `names` that a hub repository holds, on this machine.

    Raises:
        UserError: if it is neither cached nor reachable, saying what to do without a network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    found = cached(repository, names)
    if found is not None:
        return found
    reason = "no network" if not reachable() else f"it has none of {', '.join(names)}"
    if reachable():
        for name in names:
            try:
                return Path(hf_hub_download(repository, name))
            except EntryNotFoundError:
                continue
            except Exception as error:
                reason = _first_line(error)
                break
    raise UserError(
        f"'{wanted_by}' is not in the hub's cache and cannot be fetched ({reason}); "
        f"fetch the repository {repository} elsewhere and name its folder with local-dir:PATH"
    )


def fetch_some(repository: str, names: Sequence[str]) -> None:
    """Put into the cache what a repository has of `names`, where it can be reached; what it has not is not missed."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        if cached(repository, [name]) is None and reachable():
            try:
                hf_hub_download(repository, name)
            except EntryNotFoundError:
                continue
            except Exception as error:
                raise UserError(f"'{name}' of the repository {repository} cannot be fetched ({_first_line(error)})") from None


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that the hub's cache on this machine holds, if any."""
    from huggingface_hub import hf_hub_download

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except Exception:  # not cached under this name
            continue
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def reachable() -> bool:
    """Whether the hub's host has an address here: the hub's own client would retry for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("ROBUSTCAL_OFFLINE", "").lower() in ("1", "true", "yes"):
        return False
    if any(os.environ.get(name) for name in PROXIES):
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        return True
    except OSError:
        return False
