"""What of a cell may leave its machine: specs in which a path of the disk is replaced by what identifies its content."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from ..cell import Cell

#: Endings of files that specs name.
FILES = (".pt", ".pth", ".tar", ".safetensors", ".bin", ".ckpt", ".parquet", ".toml", ".py", ".txt", ".gz", ".npy")
#: Behind these a text with one slash is a repository, ``hf-hub:ORG/NAME``.
HUBS = ("hf-hub", "huggingface")
NUMBER = re.compile(r"[0-9.]+/[0-9.]+")


#: Facts of a training that hold no path, whatever slashes they have.
WORDS = {"inner", "radius"}


def portable_cell(cell: Cell) -> Cell:
    """The cell without a path of the machine in it, its id that of the identity then; a cell without any is unchanged."""
    held = cell.identity
    identity = replace(
        held, model=portable(held.model, held.weights), weights=portable(held.weights, held.weights),
        dataset=portable(held.dataset, held.data), data=portable(held.data, held.data),
        attack=portable(held.attack, held.surrogate or held.attack_file or held.attack),
        surrogate=None if held.surrogate is None else portable(held.surrogate, held.surrogate),
    )  # fmt: skip
    training = cell.training and {
        key: portable(value, value) if isinstance(value, str) and key not in WORDS else value
        for key, value in cell.training.items()
    }
    return replace(cell, identity=identity, training=training, id=cell.id if identity == held else identity.digest())


def portable(spec: str, content: str) -> str:
    """A spec whose paths read ``local-0123456789ab``, the beginning of a hash of `content`.

    >>> portable("ucat:/home/me/x.pt:base=clip:ViT-B-32/openai", "weights")[:11], portable("pgd:step=1/255", "")
    ('ucat:local-', 'pgd:step=1/255')
    """
    mark = "local-" + hashlib.sha256(content.encode()).hexdigest()[:12]
    pieces = re.split("([:=@])", spec)
    return "".join(mark if _is_path(piece, pieces[at - 2] if at > 1 else "") else piece for at, piece in enumerate(pieces))


def _is_path(piece: str, before: str) -> bool:
    if not piece or NUMBER.fullmatch(piece):
        return False
    if piece.startswith(("/", "~", "./", "../")) or "\\" in piece or piece.lower().endswith(FILES):
        return True
    head, slash, rest = piece.partition("/")
    known = (before in HUBS and "/" not in rest) or (head in _architectures() and "/" not in rest)
    return bool(slash) and not known


@cache
def _architectures() -> frozenset[str]:
    """Names of open_clip's architectures, from its folder of configurations; nothing is imported."""
    found = importlib.util.find_spec("open_clip")
    places = found.submodule_search_locations if found and found.submodule_search_locations else []
    names = {path.stem for place in places for path in Path(place).glob("model_configs/*.json")}
    return frozenset(names | {f"{name}-quickgelu" for name in names})
