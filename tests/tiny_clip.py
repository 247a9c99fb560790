"""A randomly initialised tiny CLIP in open_clip's folder layout, for tests."""

import gzip
from pathlib import Path

import torch

from robustcal.models import blueprint
from robustcal.models import folder as folders

WORDS = ["a", "photo", "of", "this", "is", "the", "red", "blue", "green", "circle", "square", "star", "cat", "dog", "zero", "one", "two"]


def config(tower="resnet", *, sigmoid=False, quick_gelu=False, context=16):
    """An open_clip model config small enough for tests. `tower`: "resnet" (ModifiedResNet) or "vit"."""
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None}
    if tower == "vit":
        vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    model = {
        "embed_dim": 32,
        "quick_gelu": quick_gelu,
        "vision_cfg": vision,
        "text_cfg": {"context_length": context, "vocab_size": 600, "width": 64, "heads": 2, "layers": 2},
    }
    if sigmoid:
        model |= {"custom_text": True, "init_logit_scale": 2.3, "init_logit_bias": -10.0}
    return model


def write_vocabulary(path: Path) -> Path:
    """A merges file that makes each of `WORDS` one token, in the layout of open_clip's own."""
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces = ["".join(pieces[:2]), *pieces[2:]]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version: test", *dict.fromkeys(merges)]))
    return path


def write_model(folder: Path, seed=0, dtype=None, **options) -> Path:
    """Write such a model to `folder` as an open_clip local-dir and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    settings = config(**options)
    clip = blueprint.make_module(settings, "test")
    folders.save_local_dir(clip, settings, folder, dtype, vocabulary=write_vocabulary(folder / "v.gz"))
    (folder / "v.gz").unlink()
    return folder
