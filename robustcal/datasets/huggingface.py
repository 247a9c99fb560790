"""Image sets from the Hugging Face hub: ``huggingface:org/name``, parquet files or a webdataset pack.

Parquet files are read in place, a row group at a time: an image column (bytes) and a label column, whose class names
the hub stores in the schema of each file. A repository with ``classnames.txt``, such as the ``clip-benchmark/wds_...``
ones, is read as a webdataset pack. A local folder of parquet files works too, with no network and no hub package.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ..registry import register
from ..types import UserError
from .card import Asked, Card, card_name, describe, split_of
from .images import ImageDataset
from .lines import read_lines, without_empty_end
from .parquet import Table, parquet_files
from .root import offline, own_path
from .webdataset import CLASSNAMES, read_pack


@register.dataset
def huggingface(
    *, variant: str | None = None, card: Card | None = None, split: str | None = None, image: str = "image",
    label: str = "label", names: str | None = None, config: str | None = None, revision: str | None = None,
    resolution: str | None = None, preprocess: str | None = None, prompts: str = "card", check: bool = True,
) -> ImageDataset:  # fmt: skip
    """A hub repository, a local folder of parquet files, or a card that says ``repository``.

    Args:
        split: default the card's, else ``test``. Parquet files belong to it by name: ``test-00000-of-00002.parquet``
            anywhere in the repository, or any file in a folder ``test``.
        image: name of the image column.
        label: name of the label column: a class index, or a list of them (multi-label).
        names: text file of class names, line number = label, for files that hold none; overrules those that they hold.
        config: sub-folder, where a repository holds several configurations.
        revision: commit or tag of the repository; default the newest.
        resolution, preprocess, prompts, check: as for every source.

    Raises:
        UserError: no such repository or split, no network, a part that is missing or differs from the others, columns
            that hold no images or labels, or labels without names.
    """
    place = variant or (card or {}).get("repository")
    if not place:
        raise UserError("dataset 'huggingface' needs a repository: huggingface:org/name")
    split = split_of(card, split) or "test"
    folder = own_path(place)
    folder = folder if folder.is_dir() else snapshot(place, split, revision)
    folder = folder / config if config else folder
    asked = Asked(resolution, preprocess, prompts, check)
    name = card_name(card) if card else place.rstrip("/").rpartition("/")[2]
    if (folder / CLASSNAMES).is_file():
        return read_pack(folder, name, split, card, asked)
    table = Table(parquet_files(folder, split), image, label)
    ids = [f"{name}/{split}/{index:05d}" for index in range(len(table.labels))]
    return describe(
        card, asked, name=name, split=split, keys=_class_names(table, names, card), labels=table.labels, ids=ids,
        picture=lambda i: Image.open(io.BytesIO(table.image(i))), content=table.image,
        where=table.where, place=str(folder), facts=table.facts,
    )  # fmt: skip


def _class_names(table: Table, names: str | None, card: Card | None) -> list[str]:
    """The names in a file of the user's, else those in the schema, else those that a card gives to numbers."""
    if names:
        path = Path(names).expanduser()
        lines = read_lines(path, "one class name per line, line number = label")
        given = lines if len(lines) == table.classes else without_empty_end(lines)
        if len(given) < table.classes or (table.names and len(given) != table.classes):
            raise UserError(f"'{path}' has {len(given)} lines for {table.classes} classes")
        table.widen(len(given))
        return given
    if table.names:
        return table.names
    if not {"classnames", "templates"} & set(card or {}):
        numbers = f"'{table.paths[0]}' numbers its classes 0 to {table.classes - 1} and does not name them"
        raise UserError(f"{numbers}; give names=FILE (one name per line, line number = label), or use a card")
    listed = (card or {}).get("classnames")
    table.widen(len(listed) if isinstance(listed, list) else (card or {}).get("classes", table.classes))
    return [str(index) for index in range(table.classes)]


def snapshot(repository: str, split: str, revision: str | None) -> Path:
    """The local copy of a repository's files of one split, downloaded by the hub's own client into its own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError("huggingface needs the package huggingface_hub: pip install robustcal[huggingface]") from None
    patterns = ["*.txt", f"{split}/*", f"*/{split}/*", f"{split}-*.parquet", f"*/{split}-*.parquet"]
    try:
        place = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=patterns, local_files_only=offline()
        )
    except Exception as error:  # the client raises errors of several packages
        reason = " ".join(str(error).split())[:200]
        trouble = f"'{repository}' is neither a folder nor a repository that can be fetched from the hub"
        raise UserError(f"{trouble} ({reason})") from None
    return Path(place)
