"""One colour for each verdict and each reason label, on every page and in every chart.

Colours are named here and defined in ``static/style.css``, for light and dark; a figure names them as ``var(--…)`` and
the script that draws it looks up what they are at that moment. They differ for people with colour blindness too: those
of verdicts by their lightness as well (``tests/dashboard/test_drawing.py`` measures it); those of labels are after Tol,
"Colour Schemes", SRON/EPS/TN/09-002, 2021 ("muted", and two beside it).
"""

from __future__ import annotations

import hashlib
from typing import Any

LABEL_COLOURS = 11
"""How many colours labels have; beside a colour always stands the label itself."""

_VERDICTS = frozenset({"passed", "failed", "selected"})
_STATUSES = {"success": "passed", "failure": "failed", "running": "running"}


def verdict_name(verdict: Any) -> str:
    """The name of a verdict's colour and class: the verdict, or ``none``."""
    return verdict if isinstance(verdict, str) and verdict in _VERDICTS else "none"


def verdict_colour(verdict: Any) -> str:
    """A verdict's colour in a figure."""
    return f"var(--verdict-{verdict_name(verdict)})"


def status_name(status: Any) -> str:
    """The class of a run's or a stage's status."""
    return _STATUSES.get(status, "none") if isinstance(status, str) else "none"


def label_number(label: Any) -> int:
    """Which of the labels' colours a label has: decided by its name alone, so that it is the same everywhere."""
    return _digest(label) % LABEL_COLOURS


def label_shape(label: Any) -> str:
    """The class of the mark beside a label: two labels of one colour mostly have marks of different shapes."""
    return ("square", "round", "diamond")[_shape(label)]


def label_pattern(label: Any) -> str:
    """The pattern of a label's bar in a figure; it goes with the shape of the mark."""
    return ("", ".", "/")[_shape(label)]


def _shape(label: Any) -> int:
    return _digest(label) // LABEL_COLOURS % 3


def _digest(label: Any) -> int:
    text = "" if label is None else str(label)
    return int.from_bytes(hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=4).digest())


def label_colour(label: Any) -> str:
    """A reason label's colour in a figure; candidates without a label are grey."""
    return "var(--verdict-none)" if label in (None, "") else f"var(--label-{label_number(label)})"


def series_colour(position: int) -> str:
    """The colour of a line or bar that stands for neither a verdict nor a label, by its position."""
    return f"var(--label-{position % LABEL_COLOURS})"
