"""What to write for a file or folder that was given where a name belongs."""

from __future__ import annotations

from pathlib import Path

#: (family, what the name of a file ends with, or "/" for a folder) -> how to name it.
PATH_FORMS = {
    ("models", ".pt .pth .tar .safetensors .bin .ckpt"): (
        "of a checkpoint write NAME:{path}:base=SPEC, such as checkpoint:{path}:base=clip:ViT-B-32/openai"
    ),
    ("models", "/"): "of a training run or a model folder write NAME:{path}, such as clip:{path}",
    ("datasets", "/"): "of class folders write folder:{path}, of tar shards webdataset:{path}",
    ("datasets", ".tar .gz"): "of tar shards write webdataset:{path}",
    ("datasets", ".json"): "of COCO annotations write coco:{path}:images=FOLDER",
}


def path_form(family: str, path: Path) -> str | None:
    """What to write for a path that was given as a name; None where nothing can be made of it."""
    if (path / "run.json").is_file():
        return f"a finished sweep is read by robustcal report {path}"
    if path.suffix == ".py":
        return f"a plugin is loaded with --plugin {path} (in Python, plugins=['{path}']) and named by what it registers"
    for (of, endings), form in PATH_FORMS.items():
        if of == family and ("/" in endings if path.is_dir() else path.suffix in endings.split()):
            return form.format(path=path)
    return None
