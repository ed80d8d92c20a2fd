"""Moments and stretches of time as people write them: ``7d``, ``12h``, or ISO 8601."""

from __future__ import annotations

import datetime as dt
import re

from xray.exceptions import SchemaError
from xray.ids import now_ms

_STRETCH = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)\Z")
_PINNED = re.compile(r"([0-9]{1,15})\.(.*)\Z", re.ASCII | re.DOTALL)  # no cursor of a question has a dot
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def stretch_ms(text: str, parameter: str) -> int:
    """A stretch of time in milliseconds.

    Args:
        text: ``30m``, ``12h``, ``7d``.
        parameter: What it was given as, for the error.

    Raises:
        SchemaError: It is no stretch of time, or none at all.
    """
    found = _STRETCH.match(text.strip())
    if found is None or int(found[1]) == 0:
        raise SchemaError(
            f"'{text:.50}' is no stretch of time.", code="bad_parameter", path=parameter, hint="Write 30m, 12h or 7d."
        )
    return int(found[1]) * _UNIT_MS[found[2]]


def is_stretch(text: str) -> bool:
    """Whether a text is written as a stretch of time is: ``7d``."""
    return _STRETCH.match(text.strip()) is not None


def moment_ms(text: str | None, parameter: str, asked_ms: int | None = None) -> int | None:
    """A moment in milliseconds since 1970; a stretch of time is so long ago.

    Args:
        text: ``7d``, or ISO 8601 with a zone; None stays None.
        parameter: What it was given as, for the error.
        asked_ms: From when stretches of time are counted back; None stands for now.

    Raises:
        SchemaError: It is neither.
    """
    if text is None:
        return None
    if is_stretch(text):
        return (now_ms() if asked_ms is None else asked_ms) - stretch_ms(text, parameter)
    try:
        # A "+" that was not percent-encoded arrives as a space.
        moment = dt.datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        moment = None
    if moment is None or (moment.tzinfo is None and "T" in text):
        raise SchemaError(
            f"'{text:.50}' is no moment.",
            code="bad_parameter",
            path=parameter,
            hint="Write 7d, 12h, or ISO 8601 with a zone: 2026-11-01T00:00:00Z.",
        )
    return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def pinned(cursor: str | None, asked_ms: int) -> str | None:
    """A cursor that remembers when the first page was asked for, so that "the last 7d" means the same on each page.

    Args:
        cursor: Where the next page begins, or None where there is none.
        asked_ms: When the first page was asked for, in milliseconds since 1970.
    """
    return None if cursor is None else f"{asked_ms}.{cursor}"


def unpinned(cursor: str | None) -> tuple[int | None, str | None]:
    """When the first page was asked for, if the cursor remembers it, and the cursor itself.

    Args:
        cursor: What :func:`pinned` gave, or any text.
    """
    found = _PINNED.match(cursor or "")
    return (int(found[1]), found[2]) if found else (None, cursor)
