"""Where datasets live on this machine: the data root. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder under which every card's files are looked for: ``$ROBUSTCAL_DATA``, else ``~/.cache/robustcal``."""
    return Path(os.environ.get("ROBUSTCAL_DATA") or "~/.cache/robustcal").expanduser()


def own_path(written: str) -> Path:
    """A path as it is written; a relative one that is not here is looked for below the data root, too."""
    path = Path(written).expanduser()
    below = data_root() / path
    return below if not path.exists() and below.exists() else path


def offline() -> bool:
    """Whether downloads are switched off: ``ROBUSTCAL_OFFLINE=1``."""
    return os.environ.get("ROBUSTCAL_OFFLINE", "").lower() in ("1", "true", "yes")
