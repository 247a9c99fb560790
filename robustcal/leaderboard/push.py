"""Put a trained run on the hub: weights, card, and a model card whose results other programs can read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cell import Cell
from ..metrics.concerns import is_valid
from ..records.portable import portable
from ..records.store import Run
from ..registry import parse_spec
from ..report.captions import NORMS
from ..report.evaluate import Measured, evaluate
from ..report.explain import protocol_facts
from ..report.words import word
from ..types import UserError, radius_text
from .card import ModelCard, read_card
from .nouns import NAMES

CARD = "card.json"
#: Files of a trained run that make it a model elsewhere.
FILES = ("model.safetensors", "open_clip_config.json", "open_clip_model.safetensors", "bpe.txt.gz")
#: How the hub names licences.
LICENCE = re.compile("[a-z0-9.-]+")
TASK = "zero-shot-image-classification"
HELD_OUT = {"clean_accuracy": "accuracy", "clean_ece": "ece", "robust_accuracy": "accuracy", "robust_ece": "ece"}


def push(run: Path, repo: str, results: Sequence[str] = (), card: Path | None = None, *, dry: bool = False) -> str:
    """Send a trained run to ``ORG/NAME``, or only say what would be sent. Returns the address, or the model card.

    Args:
        results: runs of ``robustcal bench`` that measured it; of each cell accuracy and calibration error are told.
        card: TOML of `robustcal pack --template`: name, authors, paper, training data and licence.
        dry: nothing is sent.

    Raises:
        UserError: no trained run, no huggingface_hub, no network or no right to write there.
    """
    try:
        import huggingface_hub as hub
    except ImportError:
        raise UserError("push needs huggingface_hub: pip install 'robustcal[huggingface]'") from None
    facts = facts_of(run)
    cells = [cell for path in results for cell in cells_of(run, Run.open(path))]
    given = read_card(card.read_bytes(), card.name).models if card else ()
    text = model_card(hub, repo, facts, cells, given[0] if given else ModelCard("", repo.partition("/")[2] or repo))
    if dry:
        return text
    adds = [hub.CommitOperationAdd(name, run / name) for name in FILES if (run / name).is_file()]
    texts = {"README.md": text, CARD: json.dumps(facts, indent=1)}
    adds += [hub.CommitOperationAdd(name, data.encode()) for name, data in texts.items()]
    try:
        api = hub.HfApi()
        api.create_repo(repo, exist_ok=True)
        return str(api.create_commit(repo, adds, commit_message="robustcal push").commit_url)
    except Exception as error:  # whatever the client or the network says, a line of it is for the user
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"'{repo}' was not written: {why}; log in with: hf auth login") from None


def facts_of(run: Path) -> dict[str, Any]:
    """The ``card.json`` of a trained run without a path of this machine in it.

    Raises:
        UserError: the folder is no finished run of ``robustcal train``.
    """
    try:
        facts = json.loads((run / CARD).read_text())
    except (OSError, ValueError):
        raise UserError(f"'{run}' is no finished run of robustcal train: it has no {CARD}") from None
    clean = _portable({key: value for key, value in facts.items() if key != "command"})
    return dict(clean)


#: What a card says in words, which may have slashes and are no paths.
WORDS = {"title", "templates", "licence"}


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: inner if key in WORDS else _portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    return portable(value, value) if isinstance(value, str) and ("/" in value or " " not in value) else value


def cells_of(run: Path, bench: Run) -> list[Measured]:
    """The cells of a bench that measured this run, with their numbers.

    Raises:
        UserError: none did.
    """

    def is_mine(cell: Cell) -> bool:
        variant = parse_spec(cell.model).variant
        return variant is not None and Path(variant).expanduser().resolve() == run.resolve()

    mine = {cell.model for cell in bench.cells() if is_mine(cell)}
    if not mine:
        there = ", ".join(dict.fromkeys(cell.model for cell in bench.cells()))
        raise UserError(f"run '{bench.path}' did not measure '{run}'; its models: {there}")
    cells = evaluate([bench], only=lambda source: source.cell.model in mine).cells
    return [cell for cell in cells if cell.kind != "worst" and cell.meta.task in NAMES]


def model_card(hub: Any, repo: str, facts: Mapping[str, Any], cells: Sequence[Measured], card: ModelCard) -> str:
    """The README of the repository: metadata with a ``model-index``, then the same for people."""
    found = [*held_out(hub, facts), *(one for cell in cells for one in measured(hub, cell))]
    licence = card.licence.lower()
    known = {"license": licence} if LICENCE.fullmatch(licence) else {"license": "other", "license_name": card.licence}
    about = hub.ModelCardData(
        model_name=card.name, eval_results=found or None, pipeline_tag=TASK, library_name="robustcal",
        tags=["adversarial-robustness", "calibration", "clip", str(facts.get("method", ""))], **(known if card.licence else {}),
    )  # fmt: skip
    told = {"Authors": card.authors, "Paper": card.paper, "Method": facts.get("method"), "Fine-tuned from": facts.get("base")}
    told |= {"Training data": card.training_data or facts.get("source_data"), "Licence": card.licence}
    use = f"robustcal bench --models {facts.get('method', 'checkpoint')}:FOLDER"
    lines = ["---", about.to_yaml(), "---", f"# {card.name}", "", str(facts.get("title", "")), ""]
    lines += [f"- {title}: {value}" for title, value in told.items() if value]
    lines += ["", f"Put this repository into a folder, then: `{use}`", ""]
    lines += ["| data | under | number | value |", "| --- | --- | --- | ---: |"]
    lines += [f"| {one.dataset_name} | {one.dataset_config} | {one.metric_name} | {one.metric_value:.4f} |" for one in found]
    return "\n".join([*lines, "", "Accuracies and errors are fractions.", ""])


def held_out(hub: Any, facts: Mapping[str, Any]) -> list[Any]:
    """What training measured on held-out images of its source."""
    source, numbers = str(facts.get("source_data") or "the source's held-out part"), facts.get("held_out") or {}
    return [
        hub.EvalResult(
            task_type=TASK, dataset_type=source, dataset_name=source, dataset_config=key.partition("_")[0],
            metric_type=name, metric_name=word(name).title, metric_value=float(numbers[key]),
        )
        for key, name in HELD_OUT.items()
        if isinstance(numbers.get(key), (int, float))
    ]


def measured(hub: Any, cell: Measured) -> list[Any]:
    """Accuracy and calibration error of a cell, its protocol beside them."""
    meta = cell.meta
    spec = parse_spec(meta.dataset)
    under = "clean" if meta.kind == "clean" else portable(meta.attack, meta.attack)
    under += "" if meta.kind in ("clean", "shift") else f" within {NORMS.get(meta.threat.norm, '')} {radius_text(meta.eps)}"
    names = [name for name in NAMES[meta.task] if name in cell.numbers.values and is_valid(name, tuple(cell.flags))]
    dataset = portable(spec.name if spec.variant is None else f"{spec.name}:{spec.variant}", meta.identity.data)
    return [
        hub.EvalResult(
            task_type=TASK, dataset_type=dataset, dataset_name=dataset, dataset_config=under,
            dataset_split=str(spec.params.get("split", "")) or None, metric_type=name, metric_name=word(name).title,
            metric_value=round(cell.numbers.values[name], 6), metric_args=protocol_facts(meta) | {"attack": under},
        )
        for name in names
    ]


