"""From stored pictures to tensors: decode in threads, convert to RGB, resize and crop, float32 in [0, 1]."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from ..types import Batch, Templates, UserError

#: Suffixes of pictures. Of several frames or pages the first is read, as Pillow opens it.
EXTENSIONS = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tif", ".tiff", ".jp2", ".tga",
}  # fmt: skip
#: Formats whose 32-bit integer mode holds 16-bit values, 0 to 65535, by Pillow's own rule.
SIXTEEN_BIT = {"PNG", "PPM"}
#: How many images, evenly spaced, lend their bytes to a dataset's identity.
WITNESSES = 64


def crop(image: Image.Image, side: int) -> Image.Image:
    """Shorter side to 256/224 of `side`, bilinear, then the centre: the papers' ``Resize(256), CenterCrop(224)``."""
    return _centre(_resized(image, [side * 256 // 224], InterpolationMode.BILINEAR), side)


def stretch(image: Image.Image, side: int) -> Image.Image:
    """Both sides to `side`, bilinear: the ``Resize((224, 224))`` that the papers use for CIFAR and STL-10."""
    return _resized(image, [side, side], InterpolationMode.BILINEAR)


def clip(image: Image.Image, side: int) -> Image.Image:
    """Shorter side to `side`, bicubic, then the centre: CLIP's own recipe."""
    return _centre(_resized(image, [side], InterpolationMode.BICUBIC), side)


def _resized(image: Image.Image, size: list[int], interpolation: InterpolationMode) -> Image.Image:
    resized: Image.Image = transforms.resize(image, size, interpolation)
    return resized


def _centre(image: Image.Image, side: int) -> Image.Image:
    centre: Image.Image = transforms.center_crop(image, [side, side])
    return centre


def native(image: Image.Image, side: int) -> Image.Image:
    """The stored pixels, untouched; ValueError if they are not `side` x `side`."""
    if image.size != (side, side):
        raise ValueError(f"it is {image.width}x{image.height}, not {side}x{side}; give resolution= and preprocess=")
    return image


RECIPES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop": crop, "stretch": stretch, "clip": clip, "native": native,
}  # fmt: skip


def to_rgb(image: Image.Image) -> Image.Image:
    """Three 8-bit channels from any mode of a known range: greyscale, 16-bit, palette, alpha (dropped) or CMYK.

    Raises:
        ValueError: for floating-point and 32-bit pictures, whose black and white are anybody's guess.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BIT):
        what = "floating-point" if image.mode == "F" else "32-bit integer"
        raise ValueError(f"its {what} pixels (mode {image.mode}) have no defined range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit greyscale: Pillow's own conversion would clip at 255
        deep = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(deep / 257, 0, 255).round().astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:  # by way of RGBA, or Pillow warns
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_unit(pixels: np.ndarray) -> torch.Tensor:
    """RGB bytes (N, H, W, 3) as float32 (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)


@contextlib.contextmanager
def naming(place: str, dataset: str) -> Iterator[None]:
    """Turn whatever a missing or broken file makes a reader raise into a `UserError` that names the image."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image '{place}' of dataset '{dataset}' cannot be read: {reason}") from None


@dataclass
class ImageDataset:
    """A dataset that decodes its images on demand; satisfies `types.Dataset`. Memory does not grow with use.

    Args:
        labels: (n,) int64, or (n, C) multi-hot float32.
        picture: index -> PIL image, any mode, opened but best not yet decoded; called from several threads at once.
        content: index -> bytes that stand for the stored image: part of `identity`.
        where: index -> what an error calls that image (a file, or a member of a shard).
        recipe: a key of `RECIPES`.
        facts: text that defines the set without its pixels (file names, sizes): part of `identity`.
        notes: what is worth telling about the data and does no harm, one line each: what was left out, with counts.
        workers: decoding threads.
    """

    name: str
    classnames: Sequence[str]
    templates: Templates
    resolution: int
    labels: np.ndarray
    ids: Sequence[str]
    picture: Callable[[int], Image.Image] = field(repr=False)
    content: Callable[[int], bytes] = field(repr=False)
    where: Callable[[int], str] = field(repr=False)
    recipe: str = "crop"
    facts: str = field(default="", repr=False)
    notes: Sequence[str] = ()
    workers: int = min(8, os.cpu_count() or 1)

    @property
    def task(self) -> str:
        """"multi" where labels are multi-hot, else "single"."""
        return "multi" if self.labels.ndim == 2 else "single"

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def identity(self) -> str:
        """Hash of the facts, the labels, the recipe and the bytes of some evenly spaced images; no path, no date.

        An exchanged image among the others of a large set goes unnoticed where its file name and size stay the same.
        """
        digest = hashlib.sha256(f"{self.recipe}\0{self.resolution}\0{self.facts}\0".encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        for index in np.unique(np.linspace(0, len(self) - 1, WITNESSES).astype(int)):
            try:
                content = self.content(int(index))
            except (OSError, UserError):
                content = b"unreadable"  # `read` will name it; the others still have an identity
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()[:16]

    def pixels(self, index: int) -> np.ndarray:
        """One image at the set's resolution, as bytes (R, R, 3).

        Raises:
            UserError: naming the image, if it does not decode.
        """
        with naming(self.where(index), self.name), self.picture(index) as picture:
            return np.asarray(RECIPES[self.recipe](to_rgb(picture), self.resolution))

    def read(self, indices: Sequence[int]) -> Batch:
        """These samples in this order; decoding is spread over `workers` threads."""
        rows = [int(index) for index in indices]
        side = self.resolution
        pixels = np.empty((len(rows), side, side, 3), dtype=np.uint8)

        def fill(place: int) -> None:
            pixels[place] = self.pixels(rows[place])

        if self.workers > 1 and len(rows) > 1:
            with ThreadPoolExecutor(min(self.workers, len(rows))) as pool:
                list(pool.map(fill, range(len(rows))))  # list() lets the first error out
        else:
            for place in range(len(rows)):
                fill(place)
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[rows]))
        return Batch(tuple(self.ids[i] for i in rows), to_unit(pixels), labels)
