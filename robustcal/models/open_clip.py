"""Any open_clip model: ARCH/TAG, hf-hub:ORG/NAME or local-dir:PATH."""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import weights
from ..registry import register
from ..types import UserError
from . import blueprint, folder, hub, huggingface, tokens
from .blueprint import Blueprint

if TYPE_CHECKING:
    from ..clip.classifier import ClipModel

HUB, LOCAL = "hf-hub:", "local-dir:"
FORMS = "ARCH/TAG such as ViT-B-32/openai, hf-hub:ORG/NAME, or local-dir:PATH"


def identity(
    *, variant: str | None = None, card: dict[str, Any] | None = None, activation: str | None = None, normalise: str | None = None
) -> str:
    """What the model is, without loading it: the hash of a folder; or the name of published weights, and the hash of their
    bytes once they are here."""
    source = _source(variant, card)
    changes = (activation,) if normalise is None else (activation, normalise)
    if source.startswith(LOCAL):
        return weights.digest(folder.folder_identity(Path(source[len(LOCAL) :]).expanduser()), *changes)
    if source.startswith(HUB):
        hub_name(source)
    else:
        split_tag(source)
    here = cached_weights(source)
    return weights.digest(source, *changes, *([weights.sha256(here)] if here else []))


@register.model(identity=identity)
def open_clip(
    *, variant: str | None = None, card: dict[str, Any] | None = None, activation: str | None = None, normalise: str | None = None
) -> ClipModel:
    """Load an open_clip model strictly, with image size, normalisation, context and logit scale from the model.

    Args:
        variant: ``ARCH/TAG``, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``; default: the card's `variant`.
        activation: "gelu" or "quickgelu", where the weights' origin does not say; a contradiction is refused.
        normalise: "openai", "imagenet" or "inception" pixel statistics; default: those the weights were trained with.
    """
    if activation is None and variant is None:
        activation = (card or {}).get("activation")
    model = blueprint.build(plan(_source(variant, card)), activation=activation)
    if normalise is not None:
        model.mean, model.std = blueprint.statistics(normalise)
        model.fingerprint = weights.digest(model.fingerprint, normalise)
    return model


def _source(variant: str | None, card: dict[str, Any] | None) -> str:
    source = variant or (card or {}).get("variant")
    if not source:
        raise UserError(f"model 'open-clip' needs to know which: {FORMS}")
    return source


def plan(source: str) -> Blueprint:
    """The blueprint of ``ARCH/TAG``, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``; fetches published weights."""
    if source.startswith(LOCAL):
        return folder.from_local_dir(source[len(LOCAL) :])
    if source.startswith(HUB):
        return from_hub(hub_name(source))
    return from_tag(*split_tag(source))


def from_hub(name: str) -> Blueprint:
    """The blueprint of a repository of open_clip or transformers on the Hugging Face hub (or in its local cache)."""
    where = HUB + name
    try:
        here = hub.fetch(name, [folder.CONFIG], where).parent
    except UserError:  # open_clip's config comes first: some repositories hold both
        here = hub.fetch(name, [folder.CONFIG, huggingface.CONFIG], where).parent
        if huggingface.is_model(here):
            hub.fetch_some(name, huggingface.FILES)
            return folder.of_transformers(here, where, hub.fetch(name, folder.WEIGHT_NAMES, where))
    config = folder.read_config(here)
    if pieces := folder.piece_list(config):
        hub.fetch_some(name, [pieces])
    return folder.described(config, where, hub.fetch(name, folder.WEIGHT_NAMES, where), where, here)


def hub_name(source: str) -> str:
    """``ORG/NAME`` of ``hf-hub:ORG/NAME``. Raises `UserError` if it is not of this form."""
    name = source.removeprefix(HUB)
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"'{source}' is malformed; the form is hf-hub:ORG/NAME")
    return name


def from_tag(arch: str, tag: str | None) -> Blueprint:
    """The blueprint of a built-in architecture with a published tag (None: the architecture alone).

    The tag says which activation its weights were trained with, and the model is built with that one: plain
    ``ViT-B-32/openai`` gets QuickGELU. An architecture that insists on the other one is refused.
    """
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    config = copy.deepcopy(get_model_config(arch))
    tokenizer = partial(tokens.make_tokenizer, config, arch)
    if tag is None:
        borrowed = "timm_model_name" in config["vision_cfg"]  # timm towers are GELU whatever the config says
        known = "quickgelu" if config.get("quick_gelu") else "gelu" if borrowed else None
        return Blueprint(arch, config, {}, None, known, tokenizer)
    published = get_pretrained_cfg(arch, tag)
    if not published:
        tags = list_pretrained_tags_by_model(arch)
        near = difflib.get_close_matches(tag, tags, n=2) or tags[:6]
        raise UserError(f"'{arch}' has no weights '{tag}'; there are: {', '.join(near) or 'none'}")
    quick = bool(published.get("quick_gelu", False))
    if config.get("quick_gelu") and not quick:
        plain = arch.removesuffix("-quickgelu")
        raise UserError(f"'{arch}/{tag}': these weights were trained with GELU; refused, use '{plain}/{tag}'")
    config["quick_gelu"] = quick
    preprocess = {key: published[key] for key in ("mean", "std") if key in published}
    activation = None if "timm_model_name" in config["vision_cfg"] else "quickgelu" if quick else "gelu"
    return Blueprint(f"{arch}/{tag}", config, preprocess, _published(arch, tag, published), activation, tokenizer)


def _published(arch: str, tag: str, published: Mapping[str, Any]) -> Path:
    """The weights file of a tag: from the hub, or from the address open_clip knows."""
    where = published.get("hf_hub", "")
    if where:
        repository, _, file = where.rpartition("/")
        return hub.fetch(repository, [file] if file else folder.WEIGHT_NAMES, f"{arch}/{tag}")
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(dict(published)))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        text = f"'{arch}/{tag}' cannot be fetched ({reason}); fetch it elsewhere and use local-dir:PATH"
        raise UserError(text) from None


def published(source: str) -> tuple[bool, str]:
    """Whether the weights of ``ARCH/TAG`` or ``hf-hub:ORG/NAME`` are on this machine, and where they are published.

    Anything else is not published, so it is here or nowhere: (True, "").
    """
    where, _ = _address(source)
    return not where or cached_weights(source) is not None, where


def cached_weights(source: str) -> Path | None:
    """The file with the weights of ``ARCH/TAG`` or ``hf-hub:ORG/NAME``, if it is on this machine."""
    where, names = _address(source)
    if where.startswith(("http:", "https:")):
        path = Path("~/.cache/clip").expanduser() / names[0]
        return path if path.is_file() else None
    return hub.cached(where, names) if where else None


def _address(source: str) -> tuple[str, Sequence[str]]:
    """The hub repository or address that weights are published at, and the names their file may have; ("", ()) for none."""
    from open_clip.pretrained import get_pretrained_cfg

    if source.startswith(HUB):
        return hub_name(source), folder.WEIGHT_NAMES
    arch, tag = source.partition("/")[::2]
    facts = (get_pretrained_cfg(arch, tag) if tag and arch in architectures() else None) or {}
    repository, _, file = facts.get("hf_hub", "").rpartition("/")
    if repository:
        return repository, [file] if file else folder.WEIGHT_NAMES
    address = str(facts.get("url", ""))
    return (address, [Path(address).name]) if address else ("", ())


def split_tag(source: str) -> tuple[str, str | None]:
    """``ARCH/TAG`` or ``ARCH`` in two. Raises `UserError` if open_clip has no such architecture (needs no torch)."""
    arch, _, tag = source.partition("/")
    known = architectures()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it is {FORMS}"
        raise UserError(f"model '{source}' is neither a file, a folder nor an open_clip architecture; {hint}")
    return arch, tag or None


def configs() -> list[Path]:
    """The files of open_clip's built-in architectures, found without importing it."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise UserError("the package open_clip_torch is not installed: pip install open_clip_torch")
    return sorted((Path(found.submodule_search_locations[0]) / "model_configs").glob("*.json"))


def architectures() -> list[str]:
    """Names of open_clip's built-in architectures."""
    return [path.stem for path in configs()]

