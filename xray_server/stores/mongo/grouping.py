"""The numbers of many stages by what these have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import Field, Reference, Scan
from xray_server.stores.base import Group, Grouped
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.spans import Spans
from xray_server.stores.mongo.values import Values, values

_START = Field(("started_at",))

MOST_AT_ONCE = 20_000
"""Stages that one answer is about: their values are in memory together."""


async def grouped(
    codec: Codec,
    database: AsyncDatabase[Raw],
    project: str,
    scan: Scan,
    by: Sequence[Field],
    span_ms: int | None,
    numbers: Sequence[Reference],
    spans: Spans | None = None,
) -> Grouped | None:
    """What ``Store.grouped`` returns, out of the values of the stages."""
    scan = replace(scan, limit=min(scan.limit, MOST_AT_ONCE))
    found = await values(codec, database, project, scan, (_START, *by, *numbers), spans)
    if found is None:
        return None
    return Grouped(_groups(found, len(by), span_ms), found.stages, found.last if found.stages == scan.limit else None)


def _groups(found: Values, width: int, span_ms: int | None) -> list[Group]:
    """Groups by the columns behind the first one, which has the starts, and by spans of these."""
    starts, keys, numbers = found.columns[0], found.columns[1 : 1 + width], found.columns[1 + width :]
    spans = [None if span_ms is None or start is None else start - start % span_ms for start in starts]
    # First which stages are of which group, then all numbers of a group at once.
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, kind in enumerate(zip(spans, *keys, strict=True)):
        of_kind = places.get(kind)
        if of_kind is None:
            places[kind] = [place]
        else:
            of_kind.append(place)
    return [
        Group(tuple(key), span, len(some), [_numbers(column, some) for column in numbers])
        for (span, *key), some in places.items()
    ]


def _numbers(column: Sequence[Any], places: Sequence[int]) -> list[float]:
    return [value for value in (column[place] for place in places) if type(value) in (int, float)]
