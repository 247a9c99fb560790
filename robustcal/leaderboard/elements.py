"""HTML from Python values: every text is escaped where it becomes markup, so that no name can be any."""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterable
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
EMPTY = ("meta", "input", "br")


class Html(str):
    """Text that is markup already; only `element` and `joined` make it."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element with its children: markup as it stands, other text escaped. Of attributes, ``class_`` is class.

    >>> print(element("td", "a < b", class_="x", data_v=1))
    <td class="x" data-v="1">a &lt; b</td>
    """
    told = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            label = key.rstrip("_").replace("_", "-")
            told.append(f" {label}" if value is True else f' {label}="{html.escape(shown(str(value)))}"')
    head = f"<{tag}{''.join(told)}>"
    return Html(head if tag in EMPTY else f"{head}{joined(children)}</{tag}>")


def joined(children: Child) -> Html:
    """Children side by side."""
    if children is None:
        return Html("")
    if isinstance(children, str):
        return children if isinstance(children, Html) else Html(html.escape(shown(children), quote=False))
    return Html("".join(map(joined, children)))


def shown(text: str) -> str:
    """Text without signs that have no shape or turn the direction of writing."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join(c if unicodedata.category(c) not in bad or c in "\n\u200d" else "\ufffd" for c in text)


def page(title: str, *body: Child, script: str = "") -> str:
    """A whole page that needs nothing but itself. No other script or style may run on it, and nothing may be fetched."""
    style = (ASSETS / "board.css").read_text()
    code = (ASSETS / script).read_text() if script else ""
    allowed = f"script-src '{_digest(code)}'; " if code else ""
    policy = f"default-src 'none'; {allowed}style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    told = {"viewport": "width=device-width, initial-scale=1", "referrer": "no-referrer", "color-scheme": "light dark"}
    head = element(
        "head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=policy),
        [element("meta", name=name, content=content) for name, content in told.items()], element("title", title),
        element("style", Html(style)),
    )  # fmt: skip
    end = element("script", Html(code)) if code else None
    return "<!doctype html>\n" + element("html", head, element("body", *body, end), lang="en") + "\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
