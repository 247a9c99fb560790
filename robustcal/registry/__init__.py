"""Everything that has a name: plugins of five families, cards, suites and recipes, and the spec strings that ask for them."""

from .families import (
    FAMILIES,
    ROOT,
    SUITE_FOLDERS,
    Entry,
    Family,
    Plugin,
    attacks,
    datasets,
    folder_entries,
    metrics,
    models,
    objectives,
    register,
)
from .outside import load_plugin_file
from .specs import clean_label, convert, normalise, parse_spec, split_label

__all__ = [
    "FAMILIES", "ROOT", "SUITE_FOLDERS", "Entry", "Family", "Plugin", "attacks", "clean_label", "convert", "datasets",
    "folder_entries", "load_plugin_file", "metrics", "models", "normalise", "objectives", "parse_spec", "register", "split_label",
]  # fmt: skip
