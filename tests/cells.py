"""A cell for tests that need one without a plan: every field has a value, and any of them can be another."""

from dataclasses import fields, replace
from fractions import Fraction

from robustcal.cell import Cell, Identity
from robustcal.types import Threat

KINDS = {"clean": "clean", "noise": "control", "transfer": "transfer", "square": "black-box"}


def cell(attack="pgd", eps="2/255", **given) -> Cell:
    """A cell of `attack` at `eps`; further fields of the cell, its identity or its threat model by name.

    Its id is its identity's hash, unless one is given.
    """
    eps = "0" if attack == "clean" else eps
    ours, theirs = ({field.name for field in fields(noun)} for noun in (Identity, Threat))
    facts = {name: given.pop(name) for name in list(given) if name in ours and name != "threat"}
    dangers = {name: given.pop(name) for name in list(given) if name in theirs - {"resolution"}}  # that is both's
    threat = replace(Threat(float(Fraction(eps)), resolution=given.get("resolution", 32)), **dangers)
    identity = Identity(
        **{
            "model": "tiny-clip", "weights": "weights", "dataset": "digits", "data": "data", "prompts": "prompts", "order": "order",
            "attack": attack, "attack_version": 1, "attack_file": None, "surrogate": None, "eps": eps, "threat": threat,
            "precision": "fp32", "seed": 0, **facts,
        }
    )  # fmt: skip
    usual = {
        "id": identity.digest(), "identity": identity, "n": 96, "dataset_size": max(96, given.get("n", 0)),
        "classnames": tuple(f"class {label}" for label in range(10)), "templates": ("a photo of a {}",), "task": "single",
        "resolution": 32, "kind": KINDS.get(attack.split(":")[0], "white-box"),
    }  # fmt: skip
    return Cell(**(usual | given))
