"""Recorded JSON for people to read: indented, inert, and cut where it is long, with a mark at each cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from xray_server.dashboard.filters import visible

MAX_STRING = 2000
MAX_ENTRIES = 100
MAX_CHARACTERS = 20_000
_MAX_DEPTH = 20


def json_text(value: Any, most: int = MAX_CHARACTERS) -> tuple[str, bool]:
    """A value as indented JSON, and whether something was cut out of it.

    Args:
        value: Any JSON value.
        most: Characters at the most.
    """
    cutting = _Cutting(most)
    short = cutting.cut(value, 0)
    text = msgspec.json.format(msgspec.json.encode(short), indent=2).decode("utf-8", "replace")
    lines = "\n".join(visible(line) for line in text.split("\n"))
    if len(lines) <= most * 2:
        return lines, cutting.is_cut
    return f"{lines[: most * 2]}\n…", True


def block_text(value: Any, most: int = MAX_CHARACTERS) -> tuple[str, bool]:
    """A text with its line ends as they are (a prompt), or any other value as JSON; and whether it was cut."""
    if not isinstance(value, str):
        return json_text(value, most)
    text = "\n".join(visible(line) for line in value[:most].split("\n"))
    return (text, False) if len(value) <= most else (f"{text}\n… ({len(value):,} characters)", True)


class _Cutting:
    """Cuts a value down to about so many characters, from the front."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.is_cut = False

    def cut(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, Mapping):
            return self._object(value, depth)
        if isinstance(value, list | tuple):
            return self._list(value, depth)
        self._left -= 8
        return value

    def _string(self, value: str) -> str:
        room = max(20, min(MAX_STRING, self._left))
        if len(value) <= room:
            self._left -= len(value) + 4
            return value
        self.is_cut = True
        self._left -= room
        return f"{value[:room]}… ({len(value):,} characters)"

    def _object(self, value: Mapping[str, Any], depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            return self._stop(f"… (an object of {len(value):,} fields)")
        found: dict[str, Any] = {}
        for place, (name, each) in enumerate(value.items()):
            if place >= MAX_ENTRIES or self._left <= 0:
                found["…"] = self._stop(f"{len(value) - place:,} more fields")
                break
            found[self._string(str(name))] = self.cut(each, depth + 1)
        return found

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            return self._stop(f"… (a list of {len(value):,})")
        found: list[Any] = []
        for place, each in enumerate(value):
            if place >= MAX_ENTRIES or self._left <= 0:
                found.append(self._stop(f"… {len(value) - place:,} more"))
                break
            found.append(self.cut(each, depth + 1))
        return found

    def _stop(self, words: str) -> str:
        self.is_cut = True
        return words
