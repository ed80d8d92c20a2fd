"""What spans rest on: whether a server sorts, whether a project has many documents, and where in time these lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from xray.ids import now_ms
from xray_server.stores.mongo import ids
from xray_server.stores.mongo.forms import RUNS, STAGES, Raw

START: Final = STAGES.places["started_at"].path
"""The start, of stages and of runs alike."""

WIDER: Final = 16
"""How many times longer a step back in time is than the one before it."""

NEAR_MS = 60_000
"""How near the newest start has to be known."""

_EARLIEST = -(2**53)


@dataclass(frozen=True, slots=True)
class Extent:
    """Between which starts about all runs of a project lie: some early one, and one near the newest of the past."""

    oldest: int
    newest: int


def sorts(reply: Any) -> bool:
    """Whether a plan, or what of it lies anywhere inside of a value, has a step that sorts."""
    if isinstance(reply, Mapping):
        # MongoDB's name of the step, or PostgreSQL's, on which DocumentDB stands.
        if "SORT" in (reply.get("stage"), str(reply.get("Node Type")).upper()):
            return True
        return any(sorts(inner) for name, inner in reply.items() if name != "rejectedPlans")
    return isinstance(reply, list) and any(map(sorts, reply))


async def server_sorts(database: AsyncDatabase[Raw], project: int) -> bool:
    """Whether the server sorts what an index has in order, as its own plan says."""
    find = {"find": RUNS.collection, "filter": {"p": project}, "sort": {START: -1}, "limit": 1}
    try:
        return sorts(await database.command("explain", find, verbosity="queryPlanner"))
    except OperationFailure as error:
        if error.timeout:
            raise
        return True


async def has_more_than(database: AsyncDatabase[Raw], collection: str, project: int, few: int) -> bool:
    """Whether a project has more than a few documents in a collection."""
    for of_kind in reversed(ids.ranges(project)):
        if await database[collection].find_one(of_kind, {"_id": 1}, skip=few) is not None:
            return True
    return False


async def extent_of(database: AsyncDatabase[Raw], project: int, known: Extent | None) -> Extent | None:
    """Where in time a project's runs lie; None where none has a start in the past.

    Args:
        database: The database.
        project: The project's number.
        known: What it was when it was looked for before.
    """
    now = now_ms()
    oldest = await _any_start(database, project, _EARLIEST, now)
    if oldest is None:
        return None
    at = oldest if known is None else known.newest
    later = await _any_start(database, project, at + 1, now)
    newest = at if later is None else await _nearest(database, project, later, now)
    return Extent(min(oldest, newest), newest)


async def _any_start(database: AsyncDatabase[Raw], project: int, since: int, until: int) -> int | None:
    """The start of some run that began within some time; None where there is none. An index gives the earliest."""
    where = {"p": project, START: {"$gte": DatetimeMS(since), "$lt": DatetimeMS(until)}}
    found = await database[RUNS.collection].find_one(where, {"_id": 0, START: 1})
    return None if found is None else int(found[START])


async def _nearest(database: AsyncDatabase[Raw], project: int, found: int, end: int) -> int:
    """A start that is near the newest one.

    Args:
        database: The database.
        project: The project's number.
        found: The start of some run.
        end: Up to when is searched, in milliseconds since 1970.
    """
    # From the end back in ever longer steps, since the newest is mostly of this minute; then by halves.
    step = NEAR_MS
    while end - found > NEAR_MS:
        since = max(end - step, (found + end) // 2)
        later = await _any_start(database, project, since, end)
        if later is None:
            end, step = since, step * WIDER
        else:
            found, step = later, end - since
    return found
