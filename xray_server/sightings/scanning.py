"""Where a candidate was seen, found by looking through all stages: for stores that have no index."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from xray_server.pages import CandidatePage
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, Scan, SortKey, Test
from xray_server.stores.base import Sighting, Store

STAGES_PER_SCAN = 200
_START = Field(("pipeline", "started_at"))


async def sightings_by_scan(
    store: Store,
    project: str,
    candidate_id: str,
    label: str | None,
    since: int | None,
    until: int | None,
    after: tuple[int | None, str, int] | None,
    limit: int,
) -> list[Sighting]:
    """What ``Store.sightings`` returns."""
    conditions: list[Condition] = []
    if label is not None:
        conditions.append(Test(Field(("pipeline", "label")), Compare("eq", label)))
    has_it = Test(Field(("candidate_id",)), Compare("eq", candidate_id))
    sort = (SortKey(_START, descending=True), SortKey(Field(("id",)), descending=True))
    found: list[Sighting] = []
    place: tuple[Any, ...] | None = None
    while True:
        scan = Scan("stages", EVERYTHING, And(tuple(conditions)), has_it, sort, place, STAGES_PER_SCAN)
        rows = await store.scan(project, scan)
        for row in rows:
            async with contextlib.aclosing(_pages(store, project, row.document["id"])) as pages:
                found += [Sighting(row.document, page) async for page in pages if candidate_id in page.ids]
        if len(rows) < STAGES_PER_SCAN:
            break
        place = rows[-1].sort_values
    # Not until here: the start of a stage without one is that of its pages.
    found = [
        sighting
        for sighting in found
        if (since is None or (sighting.at is not None and sighting.at >= since))
        and (until is None or (sighting.at is not None and sighting.at < until))
        and (after is None or sighting.order < Sighting.order_of(after))
    ]
    return sorted(found, key=lambda sighting: sighting.order, reverse=True)[:limit]


async def _pages(store: Store, project: str, stage_id: str) -> AsyncGenerator[CandidatePage, None]:
    async for page in store.pages(project, stage_id):
        yield page
