"""Write an open_clip model of full size with random weights: what runs with it, runs with the published weights too.

    python benchmarks/random_clip.py ViT-B-32 runs/random/ViT-B-32
    robustcal bench --models clip:local-dir:runs/random/ViT-B-32 --datasets digits:resolution=224 --limit 4
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any


def main(name: str | dict[str, Any], folder: Path) -> None:
    """Write an architecture: one that open_clip knows by name, or a configuration of one's own."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    torch.manual_seed(0)
    if isinstance(name, str):
        config, model = open_clip.get_model_config(name), open_clip.create_model(name, pretrained=None)
    else:
        config, model = name, open_clip.CLIP(**name)
    model.logit_scale.data.fill_(4.6052)  # log 100, where CLIP's training ends
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": config, "preprocess_cfg": open_clip.get_model_preprocess_cfg(model)}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    save_file({key: value.half() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
