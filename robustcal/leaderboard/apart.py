"""Decode the tables of a submission where it can do no harm: ``python -m robustcal.leaderboard.apart FILE FOLDER``.

Exit status 0 the run is in FOLDER, 2 refused for the reason on stderr; any other, or none: the decoder was ended.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

from ..types import UserError
from .archive import MOST_BYTES
from .reading import SECONDS, lay_out_all, parts_of

#: Bytes of memory.
MOST_MEMORY = 8 * MOST_BYTES


def main(path: str, folder: str) -> int:
    """Lay the records of a submission out as a run."""
    for limit, most in ((resource.RLIMIT_DATA, MOST_MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a system that has no such limit, or a lower one
            resource.setrlimit(limit, (most, most))
    try:
        lay_out_all(Path(path), parts_of(Path(path)), Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
