"""Where in the text of a question something stands: what an error names by its path, or a slip in the JSON itself."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass

from xray_server.query.operators import show

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^\s,\]}]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a text.

    Args:
        start: The first character.
        end: The one behind the last.
        line: The line of the first one, from 1.
        column: Its column, from 1.
    """

    start: int
    end: int
    line: int
    column: int

    @classmethod
    def of(cls, text: str, start: int, end: int) -> Place:
        """The place between two offsets of a text."""
        start = min(max(start, 0), len(text))
        before = text[:start]
        return cls(start, max(start, min(end, len(text))), before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1)


@dataclass(frozen=True, slots=True)
class _Spot:
    path: str
    key: tuple[int, int] | None
    value: tuple[int, int]


def malformed(text: str, error: json.JSONDecodeError) -> Place:
    """Where a text stops being JSON: the rest of the word that should not be there."""
    word = _SCALAR.match(text, error.pos)
    return Place.of(text, error.pos, word.end() if word else error.pos + 1)


def locate(text: str, path: str | None, *, key_only: bool = False) -> Place | None:
    """The key with its value, or the value in a list, that a path of an error names.

    Args:
        text: The JSON of the question, as it was written.
        path: ``stage.$failRatoi``, ``stages[1].name.$in[0]``; what only a part of it leads to is found by that part.
        key_only: Whether it is the key that is wrong.

    Returns:
        The place, or None where nothing of the path is in the text.
    """
    if not path:
        return None
    best: _Spot | None = None
    for spot in _spots(text):
        reaches = spot.path == path or path.startswith((spot.path + ".", spot.path + "["))
        if reaches and (best is None or len(spot.path) >= len(best.path)):
            best = spot
    if best is None:
        return None
    start, end = best.value
    if best.key is not None:
        # What is wrong is named by its key; with a value on the same line both are the place.
        start = best.key[0]
        end = best.key[1] if key_only or "\n" in text[start:end] or end - start > 80 else end
    return Place.of(text, start, end)


def _spots(text: str) -> list[_Spot]:
    """Every key with its value and every item, with the paths that errors name them by."""
    found: list[_Spot] = []
    with contextlib.suppress(ValueError, IndexError, RecursionError):  # what was found before the slip is there
        _walk(text, _skip(text, 0), "", found)
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _string(text: str, at: int) -> tuple[str, int]:
    """The text that begins here, and where it ends."""
    found = _STRING.match(text, at)
    if found is None:
        raise ValueError("no text begins here")
    word: str = json.loads(found[0], strict=False)
    return word, found.end()


def _walk(text: str, at: int, path: str, found: list[_Spot]) -> int:
    """Walk one value to its end."""
    opening = text[at]
    if opening == '"':
        return _string(text, at)[1]
    if opening not in "{[":
        scalar = _SCALAR.match(text, at)
        return scalar.end() if scalar else at + 1
    closing, number = ("}" if opening == "{" else "]"), 0
    at = _skip(text, at + 1)
    while text[at] != closing:
        key: tuple[int, int] | None = None
        inner = f"{path}[{number}]"
        if opening == "{":
            word, end = _string(text, at)
            key = at, end
            inner = f"{path}.{show(word)}" if path else show(word)
            at = _skip(text, end)
            at = _skip(text, at + 1)  # the colon
        start = at
        at = _walk(text, at, inner, found)
        found.append(_Spot(inner, key, (start, at)))
        number += 1
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return at + 1
