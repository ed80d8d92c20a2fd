"""How values are worded on pages. What users recorded is shown inert: escaped, isolated, its control marks visible."""

from __future__ import annotations

import datetime as dt
import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from jinja2 import Undefined
from markupsafe import Markup, escape

from xray.wording import duration, percent, size
from xray_server.api.answers import iso_time
from xray_server.dashboard.colours import label_number, label_shape, status_name, verdict_name

NOTHING = Markup('<span class="nothing" title="no value">-</span>')
SCALED: Mapping[str, Callable[[float], str]] = {
    "ms": duration,
    "ratio": percent,
    "share": percent,
    "bytes": lambda value: size(int(value)),
}
"""Units in which a value is worded in a way of its own: 0.002 ms as 2 µs, a ratio of 0.25 as 25.0%."""

MAX_TEXT = 200
"""Characters of a recorded text in a table or a heading."""

_VERDICT_MARKS = {"passed": "✓", "failed": "✕", "selected": "★", "none": "·"}
_STATUS_MARKS = {"passed": "✓", "failed": "✕", "running": "◌", "none": "·"}


def is_absent(value: Any) -> bool:
    """Whether there is no value: None, or a field that a document does not have."""
    return value is None or isinstance(value, Undefined)


def visible(text: str) -> str:
    """A text whose control and direction marks are written out, so that they can do nothing: ``⟨U+202E⟩``."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or unicodedata.category(c) in ("Zs", "Co") else _WRITTEN.get(c) or f"⟨U+{ord(c):04X}⟩"
        for c in text
    )


_WRITTEN = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u200d": "\u200d", "\u200c": "\u200c"}
"""Line ends and tabs have signs of their own; the joiners belong to scripts and emoji, and do no harm."""


def as_text(value: Any) -> str:
    """A recorded value as text: a text as it is, anything else as its JSON."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode("utf-8", "replace")


def cut(text: str, most: int) -> str:
    """A text, cut where it is long, saying how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def shown(value: Any, most: int = MAX_TEXT) -> Markup:
    """A recorded value as the content of an element: isolated, short, inert.

    Args:
        value: Any JSON value; None is a dash.
        most: Characters at the most.
    """
    if is_absent(value):
        return NOTHING
    return Markup(f"<bdi>{escape(visible(cut(as_text(value), most)))}</bdi>")  # noqa: S704 - escaped


def plain(value: Any, most: int = MAX_TEXT) -> str:
    """The same as plain text, for attributes and titles; the template escapes it."""
    return "" if is_absent(value) else visible(cut(as_text(value), most))


def number(value: Any, unit: str = "") -> Markup:
    """A number with its unit; what is no number, or not finite, is a dash.

    Args:
        value: The number.
        unit: ``ms``, ``ratio``, ``bytes`` are worded in a way of their own; any other stands behind the number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NOTHING
    return Markup(f'<span class="number">{escape(worded(value, unit))}</span>')  # noqa: S704 - escaped


def change(value: Any, unit: str = "") -> Markup:
    """A difference with its sign and unit; that of two shares is in percentage points."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NOTHING
    amount = f"{abs(value) * 100:.1f} points" if unit in ("ratio", "share") else worded(abs(value), unit)
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return Markup(f'<span class="number">{sign}{escape(amount)}</span>')  # noqa: S704 - escaped


def worded(value: float, unit: str = "") -> str:
    """A finite number with its unit as plain text."""
    if unit in SCALED:
        return SCALED[unit](value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        text = f"{int(value):,}"
    else:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    return f"{text} {unit}" if unit and unit not in ("candidates", "score", "correlation") else text


def time(value: Any) -> Markup:
    """A moment (ISO 8601, or milliseconds since 1970) to the second, in UTC, with the whole in its title."""
    text = iso_time(value) if isinstance(value, int) else value
    if not isinstance(text, str) or not text:
        return NOTHING
    whole, short = escape(text), escape(text[:19].replace("T", " "))
    html = f'<time datetime="{whole}" title="{whole}">{short}<span class="unit"> UTC</span></time>'
    return Markup(html)  # noqa: S704 - escaped


def ago(value: Any, now_ms: int) -> str:
    """How long ago a moment was, in one unit.

    Args:
        value: ISO 8601, or milliseconds since 1970.
        now_ms: Now.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value).timestamp() * 1000
        except ValueError:
            return ""
    if not isinstance(value, int | float):
        return ""
    seconds = max(0, int((now_ms - value) / 1000))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def short_id(value: Any) -> Markup:
    """An id: its last characters, which are those that differ, with the whole in its title."""
    if is_absent(value):
        return NOTHING
    text = visible(as_text(value))
    if len(text) <= 14:
        return Markup('<bdi class="id">{}</bdi>').format(text)
    return Markup('<bdi class="id" title="{}">…{}</bdi>').format(cut(text, MAX_TEXT), text[-8:])


def verdict(value: Any) -> Markup:
    """A verdict as a chip: a mark, the word, its colour."""
    name = verdict_name(value)
    word = value if name != "none" else "no verdict"
    return _chip(f"verdict-{name}", _VERDICT_MARKS[name], word)


def status(value: Any) -> Markup:
    """The status of a run or a stage as a chip."""
    if is_absent(value):
        return NOTHING
    name = status_name(value)
    return _chip(f"status-{name}", _STATUS_MARKS[name], plain(value, 40))


def label(value: Any, most: int = 80) -> Markup:
    """A reason label as a chip in its colour."""
    if is_absent(value) or value == "":
        return Markup('<span class="chip label-none">no label</span>')
    return Markup('<span class="chip label label-{} {}" title="{}"><bdi>{}</bdi></span>').format(
        label_number(value), label_shape(value), plain(value), visible(cut(as_text(value), most))
    )


def _chip(name: str, mark: str, word: Any) -> Markup:
    html = f'<span class="chip {name}"><span class="mark" aria-hidden="true">{mark}</span>{escape(word)}</span>'
    return Markup(html)  # noqa: S704 - the name and the mark are of this module
