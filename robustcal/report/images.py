"""The worst images of a cell with their perturbation: which they are, and the files that show them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..records.store import write_atomically
from .details import Shown, shown
from .evaluate import SCALAR_COLUMNS
from .merge import Source
from .plots import image_figure
from .style import save, styled

FOLDER = "images"
#: Pixels a side of a picture on the page, at least; smaller images are enlarged by whole factors.
SIDE = 96


def worst_rows(source: Source, count: int) -> list[Shown]:
    """The most confident mistakes of a cell, the least confident hits after them: those that its pane of the page lists."""
    records = source.run.read(source.cell.id, SCALAR_COLUMNS)
    return shown(source.cell.classnames, records, None, count)


def write_images(
    source: Source, rows: Sequence[Shown], clean: np.ndarray, attacked: np.ndarray, out: Path
) -> list[Path]:  # fmt: skip
    """Write ``images/CELL.{pdf,png}``, and for the page a strip of each sample with ``images/CELL.json``; the paths.

    Args:
        clean, attacked: (K, 3, H, W) in [0, 1], one for each row.
    """
    cell, eps = source.cell, source.cell.threat.eps if source.cell.kind != "clean" else 0.0
    captions = [f"{one.label}\n{'✓' if one.correct else '→'} {one.prediction}\n{100 * one.confidence:.0f} %" for one in rows]
    with styled():
        figure = image_figure(list(zip(captions, clean, attacked)), reach(eps, clean, attacked))
        paths = save(figure, out / FOLDER / cell.id, ("pdf", "png"))
    strips = {}
    for number, (one, before, after) in enumerate(zip(rows, clean, attacked)):
        name = f"{cell.id}-{number:03d}.png"
        write_atomically(out / FOLDER / name, png(strip(before, after, reach(eps, before[None], after[None]))))
        strips[one.id] = name
    write_atomically(out / FOLDER / f"{cell.id}.json", (json.dumps(strips, indent=1) + "\n").encode())
    return paths


def reach(eps: float, clean: np.ndarray, attacked: np.ndarray) -> float:
    """The change of a channel that is shown in full: the largest there is, at most the radius (one in L2 may be larger)."""
    largest = float(np.abs(attacked - clean).max(initial=0.0))
    return min(eps, largest) if largest > 0 else 0.0


def strip(clean: np.ndarray, attacked: np.ndarray, eps: float) -> np.ndarray:
    """Clean, attacked and stretched change side by side: (H, W, 3) uint8."""
    change = 0.5 + (attacked - clean) / (2 * eps) if eps > 0 else np.full_like(clean, 0.5)
    gap = np.ones((3, clean.shape[1], max(1, clean.shape[2] // 16)), clean.dtype)
    row = np.concatenate([clean, gap, attacked, gap, change], axis=2)
    pixels = np.rint(255 * np.clip(np.moveaxis(row, 0, -1), 0, 1)).astype(np.uint8)
    factor = max(1, SIDE // clean.shape[1])
    return np.repeat(np.repeat(pixels, factor, 0), factor, 1)


def png(pixels: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    return file.getvalue()


def images_beside(out: Path) -> dict[tuple[str, str], str]:
    """What the page shows: (cell id, sample id) -> address relative to `out`, of all strips that were written there."""
    found = {}
    for path in sorted((out / FOLDER).glob("*.json")):
        for sample, name in json.loads(path.read_text()).items():
            if Path(name).name == name and (out / FOLDER / name).is_file():
                found[path.stem, sample] = f"{FOLDER}/{name}"
    return found
