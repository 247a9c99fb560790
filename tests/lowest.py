"""The lower bounds that pyproject.toml states, as constraints for pip: ``torch>=2.6`` -> ``torch==2.6``.

    python tests/lowest.py [EXTRA ...] > lowest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path


def lowest(project: dict, extras: Sequence[str] = ()) -> list[str]:
    """One constraint for each requirement with a lower bound, of the package itself and of these extras."""
    optional = project.get("optional-dependencies", {})
    stated = [*project["dependencies"], *(text for extra in extras for text in optional[extra])]
    found = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", text) for text in stated)
    return list(dict.fromkeys(f"{match[1]}=={match[2]}" for match in found if match))


if __name__ == "__main__":
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    print("\n".join(lowest(tomllib.loads(text)["project"], sys.argv[1:])))
