"""Reading the samples of a shard when an image among them does not decode: named and counted, never left out silently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

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
        batch = dataset.read(indices)
    except UserError as error:
        if not skip:
            raise Unreadable(str(error)) from None
    else:
        return checked(batch, dataset, indices), []
    broken = dict(unreadable(dataset, indices))
    kept = [index for index in indices if dataset.ids[index] not in broken]
    if not kept:
        raise Unreadable(f"none of {len(indices)} images in a row can be read: {next(iter(broken.values()))}")
    return checked(dataset.read(kept), dataset, kept), list(broken)


def checked(batch: Batch, dataset: Dataset, indices: Sequence[int]) -> Batch:
    """The batch, if it is what a dataset's `read` must return.

    Raises:
        UserError: other ids or labels than the dataset's own, or images that are no (n, 3, H, W) in [0, 1].
    """
    images, side = batch.images, dataset.resolution
    wanted = torch.as_tensor(np.asarray(dataset.labels)[np.asarray(indices)])
    wrong = None
    if tuple(batch.ids) != tuple(dataset.ids[index] for index in indices):
        wrong = "ids other than those asked for, or in another order"
    elif images.ndim != 4 or images.shape[:2] != (len(indices), 3) or (side and images.shape[2:] != (side, side)):
        wrong = f"images {tuple(images.shape)} for {len(indices)} samples at resolution {side}"
    elif images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
        wrong = f"images of {images.dtype} from {images.min():.4g} to {images.max():.4g}; they are float32 in [0, 1]"
    elif batch.labels.shape != wanted.shape or not torch.equal(batch.labels.to(wanted.dtype), wanted):
        wrong = "labels other than the dataset's own"
    elif batch.labels.ndim == 1 and batch.labels.dtype != torch.int64:
        wrong = f"labels of {batch.labels.dtype}; they are int64"
    if wrong:
        raise UserError(f"dataset '{dataset.name}' read {wrong}")
    return batch


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
