"""Courses: an attack or a shift at rising strength, the clean images first."""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import parse_spec
from ..types import Spec
from .again import members, usable
from .averages import Member
from .evaluate import Measured, Results


@dataclass(frozen=True)
class Course:
    """One attack or shift at rising strength.

    Attributes:
        title: what rises, and of what: ``radius, pgd``.
        names, strengths, steps: of every step its name, its number, and its attack and radius; the first is clean.
    """

    title: str
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    steps: tuple[Member, ...]


def courses(results: Results) -> list[Course]:
    """Attacks by radius, and shifts by their parameter `severity`, each behind the clean images."""
    cells = [cell for cell in results.cells if usable(cell.meta) and cell.kind != "clean"]
    clean = next(((cell.attack, cell.eps) for cell in results.cells if cell.kind == "clean" and usable(cell.meta)), None)
    found: dict[str, dict[Member, tuple[str, float]]] = {}
    for attack, eps in members(results):
        cell = next((c for c in cells if (c.attack, c.eps) == (attack, eps)), None)
        if cell is None:
            continue
        severity, title = _severity(cell)
        if severity is not None:
            found.setdefault(f"severity, {title}", {})[attack, eps] = (f"{severity:g}", severity)
        elif cell.meta.threat.eps > 0:
            found.setdefault(f"radius, {results.labels['attack'][attack]}", {})[attack, eps] = (eps, cell.meta.threat.eps)
    made = []
    for title, steps in found.items():
        if clean is None:
            break
        ordered = sorted(steps.items(), key=lambda item: item[1][1])
        names, strengths = zip(*(of for _, of in ordered), strict=True)
        made.append(Course(title, ("clean", *names), (0.0, *strengths), (clean, *(step for step, _ in ordered))))
    return made


def _severity(cell: Measured) -> tuple[float | None, str]:
    """The severity of a shift, and its spec without it; None of what has none."""
    spec = parse_spec(cell.attack.split(" #")[0])
    value = spec.params.get("severity") if cell.kind == "shift" else None
    rest = {key: param for key, param in spec.params.items() if key != "severity"}
    return (None if value is None else float(value)), str(Spec(spec.name, spec.variant, rest))
