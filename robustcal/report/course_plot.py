"""A figure of the premise: uncertainty against severity or radius, next to accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .averages import SINGLE, Averages
from .courses import Course, courses
from .evaluate import Results
from .lettering import drawable, legend, name_of, ticks, wrapped
from .style import label_percent, look, panels
from .words import word


def course_curves(results: Results, course: Course, number: str = "entropy", ax: Axes | None = None) -> Axes:
    """One number of every model along a course (see `courses.courses`): averages over data sets with 95 % intervals.

    Args:
        number: its name among the report's numbers, such as accuracy, entropy, confidence, au or log10_eu.
        ax: where to draw; by default a figure of its own.
    """
    if ax is None:
        ax = Figure(layout="constrained").subplots()
    averages = Averages(results, SINGLE)
    sets = averages.sets(*course.steps)
    for i, model in enumerate(averages.models):
        steps = [averages.get(model, *step, sets) for step in course.steps]
        known = [step.interval(number) for step in steps if step is not None and number in step.values]
        if len(known) == len(steps):
            value, low, high = np.array(known).T
            bars = np.nan_to_num(np.maximum([value - low, high - value], 0))
            label = name_of(results, "model", model)
            style: dict[str, Any] = {**look(i), "markersize": 4, "elinewidth": 0.7, "capsize": 1.5}
            ax.errorbar(course.strengths, value, bars, label=label, **style)
    about = word(number)
    ticks(ax, dict(zip(course.names, course.strengths, strict=True)))
    ax.set_xlabel(wrapped(drawable(course.title), 2.6))
    ax.set_ylabel(wrapped(f"{about.title.lower()} {'%' if about.unit == 'fraction' else about.unit}".strip(), 2))
    ax.grid(axis="y")
    if about.unit == "fraction":
        label_percent(ax, limit=False)
    return ax


def course_figure(results: Results, course: Course, number: str = "entropy", ax: Any = None) -> Figure:
    """Accuracy, and an uncertainty beside it, along one course. `ax`: two axes to draw on."""
    figure, axes = panels(2, 1, 3.2, 2.7, ax)
    for panel, name in zip(axes, ("accuracy", number), strict=True):
        course_curves(results, course, name, panel)
    legend(figure, axes, own=ax is None)
    return figure


def premise_figure(results: Results, attack: str, ax: Any = None) -> Figure | None:
    """`course_figure` of an attack or shift; of a worst case, which has no course, of the first that there is."""
    found = courses(results)
    own = [course for course in found if attack in dict(course.steps[1:])]
    worst = any(cell.meta.members for cell in results.cells if cell.attack == attack)
    chosen = next(iter(own or (found if worst else [])), None)
    return course_figure(results, chosen, ax=ax) if chosen else None
