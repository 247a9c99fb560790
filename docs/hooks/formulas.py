"""Formulas become MathML while the site is built: they show in any browser, without a script and without a network."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
#: MathML stretches brackets by itself.
SIZES = re.compile(r"\\[Bb]igg?[lr]?(?![A-Za-z])")


def on_page_content(text: str, page, **_) -> str:
    """Replace every formula of a page; one that cannot be read fails the build."""
    return FORMULA.sub(lambda found: to_mathml(found[3], found[2] == "[", page.file.src_path), text)


def to_mathml(tex: str, block: bool, where: str) -> str:
    """One formula as MathML.

    Raises:
        PluginError: naming the page and the formula.
    """
    tex = SIZES.sub("", html.unescape(tex)).strip()
    try:
        formula = convert(tex, display="block" if block else "inline")
    except Exception as error:  # the converter has a class of its own for every kind of mistake
        raise PluginError(f"{where}: formula '{tex}' cannot be read: {type(error).__name__}") from None
    if "\\" in re.sub(r"<[^>]*>", "", formula):
        raise PluginError(f"{where}: formula '{tex}' uses a command that is unknown to the converter")
    return formula
