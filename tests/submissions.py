"""Submissions for tests of the leaderboard: honest ones packed from invented runs, and forged ones made from those."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from synthetic_run import make_run

from robustcal.leaderboard.archive import MANIFEST, as_json, content_of, write_archive
from robustcal.leaderboard.pack import pack

SMALL = {"models": ("ucat",), "attacks": ("clean", "pgd"), "datasets": ("digits",), "radii": ("1/255",), "n": 40}


def submission(folder: Path, name: str = "one", **given) -> Path:
    """The submission `name`.zip of a small invented run, beside that run."""
    run = make_run(folder / name, **{**SMALL, **given})
    pack(run, folder / f"{name}.zip")
    return folder / f"{name}.zip"


def members_of(path: Path) -> dict[str, bytes]:
    """What a submission holds, without its manifest."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}


def forged(path: Path, out: Path, change) -> Path:
    """The submission with `change(members)` done to its members, every hash made again by the forger."""
    members = members_of(path)
    change(members)
    write_archive(out, members)
    return out


def raw(path: Path, out: Path, change) -> Path:
    """The submission written by hand: `change(archive, members)` writes what `write_archive` would not."""
    members = members_of(path)
    content, sums = content_of(members)
    about = {"kind": "robustcal submission", "version": 1, "content": content, "members": sums}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: as_json(about), **members}.items():
            archive.writestr(name, data)
        change(archive, members)
    return out


def cells_of(members: dict[str, bytes]) -> dict:
    """The parsed cells.json."""
    return json.loads(members["cells.json"])
