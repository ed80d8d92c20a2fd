"""The metrics of rollups, each read when somebody asks for it.

A rollup has some dozens of metrics with their sketches, and a question names a few of them: trends over months would
spend most of their time on what nobody looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode


class UnreadMetrics(Mapping[str, Mapping[str, Any]]):
    """Metric → its summary, as a rollup has them; equal to the same as a dict.

    Args:
        text: The JSON object that was kept.
    """

    __slots__ = ("_raw", "_read")

    def __init__(self, text: bytes | str) -> None:
        self._raw: dict[str, msgspec.Raw] = _split(text)
        self._read: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = _decode(self._raw[name])
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return repr(dict(self))
