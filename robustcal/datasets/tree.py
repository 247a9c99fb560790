"""The images below a folder: each folder is entered once, and what is not read is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..types import UserError
from .images import EXTENSIONS
from .lines import LeftOut

#: Folders that systems and file servers leave among pictures: their thumbnails and shadow files are no samples.
JUNK = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found"}


def hidden(name: str) -> bool:
    """Whether a file or folder is one that its owner does not see: ``.thumbnails``, ``._1.png``, ``__MACOSX``."""
    return (name.startswith(".") and name not in (".", "..")) or name in JUNK


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of a picture."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name.

    Raises:
        UserError: if it cannot be listed.
    """
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"folder '{folder}' cannot be listed: {error.strerror}") from None


class Tree:
    """A walk below `top` that follows links, enters no folder twice, and tells in `left` what it does not read."""

    def __init__(self, top: str, left: LeftOut):
        self.top, self.left = top, left
        real = Path(os.path.realpath(top))
        self.above = [str(real), *map(str, real.parents)]  #: the folders that the walk is in, without their links
        self.entered: dict[str, str] = {}

    def images(self, folder: str) -> list[str]:
        """All images below a folder, sorted by path; hidden ones are left out, and links upwards not followed.

        Raises:
            UserError: if a folder is reached twice, so that its images would count twice; or cannot be listed.
        """
        place = os.path.realpath(folder)
        if place in self.entered:
            raise UserError(f"'{folder}' and '{self.entered[place]}' are one folder; its images would count twice")
        self.entered[place] = folder
        self.above.append(place)
        found: list[str] = []
        for entry in entries(folder):
            if hidden(entry.name):
                self.skip(entry)
            elif os.path.isdir(entry.path):
                found += [] if self.leads_up(entry.path) else self.images(entry.path)
            elif not (entry.is_symlink() or entry.is_file()):
                self.left.add("neither files nor folders, not read", self._name(entry.path))
            elif is_image(entry.name):
                found.append(entry.path)  # a link to nothing too: reading it names it
            else:
                suffix = os.path.splitext(entry.name)[1].lower()
                kind = f"files of suffix {suffix}, not read" if suffix else "files without a suffix, not read"
                self.left.add(kind, self._name(entry.path))
        self.above.pop()
        return sorted(found)

    def leads_up(self, folder: str) -> bool:
        """Whether a folder is a link to one that it lies in; it is counted then, and must not be entered."""
        up = os.path.realpath(folder) in self.above
        if up:
            self.left.add("links to a folder above, not followed", self._name(folder))
        return up

    def skip(self, entry: os.DirEntry[str]) -> None:
        """Count the images of a hidden file or folder."""
        shown = list(_below(entry.path)) if entry.is_dir(follow_symlinks=False) else [entry.path]
        pictures = [path for path in shown if is_image(path)]
        if pictures:
            self.left.add("images in hidden files and folders, not read", self._name(pictures[0]), len(pictures))

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.top)


def _below(folder: str) -> Iterator[str]:
    for path, _, files in os.walk(folder):
        yield from (os.path.join(path, file) for file in sorted(files))
