"""Reading the samples of a shard when an image among them does not decode: named and counted, never left out silently."""

from __future__ import annotations

from typing import Sequence

from ..types import Batch, Dataset, UserError

CHUNK = 128


class Unreadable(UserError):
    """A dataset has images that do not decode."""


def read(dataset: Dataset, indices: Sequence[int], skip: bool) -> tuple[Batch, list[str]]:
    """These samples in order, and the ids of those that were left out because they do not decode.

    Raises:
        Unreadable: an image does not decode and `skip` is false, or nothing is left.
    """
    try:
        return dataset.read(indices), []
    except UserError as error:
        if not skip:
            raise Unreadable(str(error)) from None
    broken = dict(unreadable(dataset, indices))
    kept = [index for index in indices if dataset.ids[index] not in broken]
    if not kept:
        raise Unreadable(f"none of {len(indices)} images in a row can be read: {next(iter(broken.values()))}")
    return dataset.read(kept), list(broken)


def unreadable(dataset: Dataset, indices: Sequence[int]) -> list[tuple[str, str]]:
    """The samples that do not decode: (id, what the dataset says about it)."""
    found: list[tuple[str, str]] = []
    for start in range(0, len(indices), CHUNK):
        chunk = list(indices[start : start + CHUNK])
        try:
            dataset.read(chunk)
        except UserError:
            found += [(dataset.ids[index], said) for index in chunk if (said := _complaint(dataset, index))]
    return found


def _complaint(dataset: Dataset, index: int) -> str | None:
    try:
        dataset.read([index])
    except UserError as error:
        return str(error)
    return None


def explain(spec: str, dataset: Dataset, indices: Sequence[int]) -> str:
    """One sentence about the images of a selection that do not decode: how many, the first by name, what to do."""
    found = unreadable(dataset, indices)
    first = found[0][1] if found else f"dataset '{spec}' could not be read"
    return (
        f"{first}; {len(found)} of {len(indices)} images of '{spec}' cannot be read and its cells are not finished:"
        " mend or replace them, or leave them out with --skip-unreadable"
    )
