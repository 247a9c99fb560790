"""Bundle a zoo of training runs: fp16 weights beside the base, and model cards that state what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..check.fingerprint import as_toml, fingerprint
from ..clip import weights
from ..models import folder as model_folder
from ..models.tokens import VOCABULARY
from ..registry import datasets, models
from ..types import UserError


def bundle(base: Path, towers: Mapping[str, Path], claims: Sequence[str], out: Path, licence: str = "") -> None:
    """Write ``out/weights`` and ``out/cards``, ready to be copied into the package.

    Args:
        base: a finished pre-training run (an open_clip folder with a `card.json`).
        towers: method -> finished fine-tuning run; its card is named after the zoo and the method, ``tiny-ucat``.
        claims: dataset specs on which a card states the clean accuracy.
        licence: of the weights, as their cards say it.

    Raises:
        UserError: if a run is not finished.
    """
    facts = {name: _facts(run) for name, run in {"clip": base, **towers}.items()}
    zoo = facts["clip"]["recipe"]["name"].partition("/")[0]
    folder, cards = out / "weights", out / "cards"
    cards.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    for name in (model_folder.CONFIG, model_folder.WEIGHTS, VOCABULARY):
        shutil.copyfile(base / name, folder / name)
    for name, card in facts.items():
        file, spec = folder / model_folder.WEIGHTS, f"open-clip:local-dir:{folder}"
        if name != "clip":
            file, spec = folder / f"{name}.safetensors", f"checkpoint:{folder / name}.safetensors:base={spec}"
            weights.save_state_dict(weights.load_state_dict(towers[name] / "model.safetensors"), file, torch.float16)
        measured = {dataset: clean_accuracy(spec, dataset) for dataset in claims}
        table = as_toml(fingerprint(models.build(spec)))
        text = card_text(card, file.name, weights.sha256(file), measured, licence)
        (cards / f"{zoo}-{name}.toml").write_text(text + "\n" + table)


@torch.no_grad()
def clean_accuracy(model: str, dataset: str, batch: int = 250) -> float:
    """Share of the samples of a dataset spec that a model spec classifies correctly, in the dataset's own prompts."""
    source = datasets.build(dataset)
    classifier = models.build(model).classifier(source.classnames, source.templates)
    right = 0
    for start in range(0, len(source.ids), batch):
        part = source.read(list(range(start, min(start + batch, len(source.ids)))))
        right += int((classifier(part.images).argmax(-1) == part.labels).sum())
    return right / len(source.ids)


def card_text(card: Mapping[str, Any], file: str, digest: str, claims: Mapping[str, float], licence: str = "") -> str:
    """A bundled model's card as TOML."""
    recipe, processes = card["recipe"], card.get("processes", 1)
    launch = "robustcal" if processes == 1 else f"torchrun --nproc_per_node={processes} -m robustcal.cli"
    facts = {
        "title": card["title"], "source": "bundled", "folder": recipe["name"].partition("/")[0],
        "weights": file, "sha256": digest, "method": card["method"],
        "objective": recipe["objective"] if recipe["task"] == "finetune" else "", "seed": card["seed"],
        "steps": card["steps"], "command": f"{launch} train {recipe['name']} --seed {card['seed']}",
        "source_data": card["source_data"], "activation": "gelu", "licence": licence,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items() if value not in ("", None)]
    for spec, accuracy in claims.items():
        lines += ["", f'[claims."{spec}"]', f"clean_accuracy = {accuracy:.4f}"]
    return "\n".join(lines) + "\n"


def _facts(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "card.json").read_text())
    except FileNotFoundError:
        raise UserError(f"'{run}' is no finished training run: it has no card.json") from None
    return found
