"""Charts as plain Plotly dicts, each with its figures as a table for those who cannot see it.

Colours are named (``var(--verdict-failed)``, or ``faint(--verdict-failed)``; see ``colours.py``); fonts, grid, margins
and the background come from the page that draws it. A point of which ``customdata`` is an address on this server is a
link.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from markupsafe import Markup

from xray_server.dashboard.filters import as_text, cut, visible


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart.

    Args:
        name: A word that is its own on the page; the element's id.
        title: What it shows, above it.
        data: Plotly's traces.
        layout: Plotly's layout, as far as it differs from that of all charts.
        columns: The heads of the table that says the same.
        rows: Its rows.
        note: A sentence below: how to read it, what is left out.
        height: In CSS pixels.
        min_width: In CSS pixels; where the page has less room, the chart scrolls within itself. 0: it fits any width.
    """

    name: str
    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    note: str = ""
    height: int = 280
    min_width: int = 0


def as_json(figure: Figure) -> Markup:
    """A figure as JSON that can stand inside an element of a page; numbers that JSON lacks are null."""
    text = msgspec.json.encode({"data": _finite(figure.data), "layout": _finite(figure.layout)}).decode()
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing that could end the element is left in it


def chart_text(value: Any, most: int = 60) -> str:
    """A recorded value as text in a chart: short, inert, and none of the markup that Plotly reads in texts."""
    text = visible(cut(as_text(value), most))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
