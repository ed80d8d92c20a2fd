"""Scans by start, read span after span of time, where a server would read and sort everything that is stored.

MongoDB reads an index in its order and stops at the limit. A server that sorts whatever a filter lets through (as
DocumentDB 1.0 does) takes longer for "the latest" where more is stored. But of an index it reads no more than a range;
so a scan asks for the latest minutes first, and goes back in time, span after span, until it has enough. Spans touch,
none is read twice, and the first and the last one have no end: what is found, and in which order, is the same as
without spans, wherever they lie.

Where spans begin and how long they are is a guess, out of what earlier scans of the process have seen. A wrong guess
costs time, never a row.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.database import AsyncDatabase

from xray_server.stores.mongo.extents import START, Extent, extent_of, has_more_than, server_sorts
from xray_server.stores.mongo.filters import FALSE, TRUE, Filter, all_of, asks_for_value, parts
from xray_server.stores.mongo.forms import STAGES, Raw
from xray_server.stores.mongo.layout import LISTED

FEW = 500
"""Documents of a project up to which sorting all of them takes no longer than a span."""

LOOK_EVERY_S = 10.0
"""How long it counts that a project has few documents, and where its newest one is."""

FIRST_MS = 60_000
"""How long the first span is where nothing is known."""

WIDER = 16
"""How many times longer than all before it a span is where these had nothing, and at the most."""

WHOLE = 4
"""A scan that would go through more than one of so many parts of a project's time takes the rest at once."""

BOTH_ENDS = 8
"""How many documents' places in an index are passed over in the time that one document takes to be read."""

_LATEST = 2**63 - 1
_MAX_KINDS = 1000
_COMPARISONS = ("$gt", "$gte", "$lt", "$lte")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scan of a kind had to read.

    Args:
        rows: How many rows it found.
        ms: Within how much time, counted from where it began; None where there were no more.
    """

    rows: int
    ms: int | None


class Spans:
    """What is remembered of a server and its projects, for one database."""

    def __init__(self) -> None:
        self._sorts: bool | None = None
        self._few_until_s: dict[tuple[str, int], float] = {}
        self._extents: dict[int, tuple[Extent, float]] = {}
        self._seen: OrderedDict[tuple[Any, ...], Seen] = OrderedDict()

    async def way(
        self,
        database: AsyncDatabase[Raw],
        collection: str,
        project: int,
        where: Filter,
        *,
        descending: bool,
        after: int | None,
        wanted: int,
    ) -> Way:
        """The way of a scan through time.

        Args:
            database: The database.
            collection: The collection.
            project: The project's number.
            where: What is looked for.
            descending: Whether the latest come first.
            after: The start behind which the scan goes on, in milliseconds since 1970.
            wanted: How many documents.
        """
        way = Way(where, after, descending=descending, wanted=wanted, is_listed=collection == STAGES.collection)
        if not await self._is_worth_it(database, collection, project):
            return way
        extent = await self._extent_of(database, project)
        if extent is not None:
            kind = (collection, project, descending, after is not None)
            way.part(self, extent, (*kind, hash(repr(where))), (*kind, hash(repr(_shape(where)))))
        return way

    # --- whether --------------------------------------------------------------------------------------------------

    async def _is_worth_it(self, database: AsyncDatabase[Raw], collection: str, project: int) -> bool:
        if self._sorts is None:
            self._sorts = await server_sorts(database, project)
        if not self._sorts:
            return False
        until_s = self._few_until_s.get((collection, project), 0.0)
        if until_s < time.monotonic():
            many = await has_more_than(database, collection, project, FEW)
            until_s = math.inf if many else time.monotonic() + LOOK_EVERY_S
            self._few_until_s[collection, project] = until_s
        return until_s == math.inf

    # --- where documents are ------------------------------------------------------------------------------------

    async def _extent_of(self, database: AsyncDatabase[Raw], project: int) -> Extent | None:
        """Where in time the project's runs lie; None where none has a start in the past."""
        known, until_s = self._extents.get(project, (None, 0.0))
        if until_s > time.monotonic():
            return known
        extent = await extent_of(database, project, known)
        if extent is not None:
            self._extents[project] = extent, time.monotonic() + LOOK_EVERY_S
        return extent

    # --- how long a span is -------------------------------------------------------------------------------------

    def width(self, exact: tuple[Any, ...], kind: tuple[Any, ...], wanted: int) -> int | None:
        """How long the first span of a scan is.

        Args:
            exact: Names scans with the same filter.
            kind: Names scans that differ only in what they compare with.
            wanted: How many documents are wanted.

        Returns:
            Milliseconds; None where all of time is best.
        """
        of_exact, of_kind = self._seen.get(exact), self._seen.get(kind)
        if of_exact is not None and of_exact.ms is None and of_exact.rows < wanted:
            return None
        for seen in (of_exact, of_kind):
            if seen is not None and seen.ms is not None:
                return _long_enough(wanted, seen.rows, seen.ms)
        return FIRST_MS

    def learn(self, exact: tuple[Any, ...], kind: tuple[Any, ...], seen: Seen) -> None:
        """Remember what a scan has seen."""
        for key in (exact,) if seen.ms is None else (exact, kind):
            self._seen[key] = seen
            self._seen.move_to_end(key)
        while len(self._seen) > _MAX_KINDS:
            self._seen.popitem(last=False)


class Way:
    """The spans of one scan, one after the other; a single one, unless :meth:`part` makes more of it.

    Args:
        where: What is looked for.
        after: The start behind which the scan goes on, in milliseconds since 1970.
        descending: Whether the latest come first.
        wanted: How many documents.
        is_listed: Whether the index over start is one over lists of words.
    """

    def __init__(self, where: Filter, after: int | None, *, descending: bool, wanted: int, is_listed: bool) -> None:
        self._where, low, high = split(where)
        self._bounds = low, high
        self._low, self._high = low, high
        if after is not None and descending:
            self._high = after if high is None else min(after, high)
        elif after is not None:
            behind = min(after, _LATEST - 1) + 1
            self._low = behind if low is None else max(behind, low)
        self._is_listed = is_listed
        self._descending = descending
        self._wanted = wanted
        self._spans: Spans | None = None
        self._extent = Extent(0, 0)
        self._names: tuple[tuple[Any, ...], tuple[Any, ...]] = (), ()
        self._at = 0
        self._edge: int | None = None
        self._is_done = False

    @property
    def _by_word(self) -> Filter:
        """What is looked for, so that no other index than that over words and start is taken."""
        if self._spans is None or not self._is_listed:
            return self._where
        each = [{path: wanted} for part in parts(self._where) for path, wanted in part.items() if path != "$and"]
        words = [part for part in each if LISTED in part]
        return all_of([*words, looked_at(all_of([part for part in each if LISTED not in part]))])

    def part(self, spans: Spans, extent: Extent, exact: tuple[Any, ...], kind: tuple[Any, ...]) -> None:
        """Take more than one span.

        Args:
            spans: What remembers.
            extent: Where in time the project's documents lie.
            exact: Names scans with the same filter.
            kind: Names scans that differ only in what they compare with.
        """
        self._spans, self._extent, self._names = spans, extent, (exact, kind)
        if self._descending:
            self._at = extent.newest if self._high is None else min(self._high, extent.newest)
        else:
            self._at = extent.oldest if self._low is None else max(self._low, extent.oldest)

    def next(self, found: int) -> Filter | None:
        """The filter for the next span; None where there is none.

        Args:
            found: How many documents were found on the way so far.
        """
        if self._is_done:
            return None
        begin, end = self._edge, self._end(found)
        self._edge, self._is_done = end, end is None
        if self._descending:
            return self._between(self._low if end is None else end, self._high if begin is None else begin)
        return self._between(self._low if begin is None else begin, self._high if end is None else end)

    def note(self, found: int, last: int | None) -> None:
        """Remember how the way was.

        Args:
            found: How many documents were found on it.
            last: The start of the last of them.
        """
        if self._spans is None:
            return
        limit = self._low if self._descending else self._high
        if found >= self._wanted and last is not None:
            self._spans.learn(*self._names, Seen(found, max(1, abs(self._at - last))))
        elif self._is_done and limit is None:
            self._spans.learn(*self._names, Seen(found, None))
        elif self._is_done and limit is not None and found:
            # As many as the bounds of the filter have: so many are in so much time.
            self._spans.learn(*self._names, Seen(found, max(1, abs(self._at - limit))))

    def _end(self, found: int) -> int | None:
        """Where the next span ends; None where it is the last one."""
        if self._spans is None:
            return None
        if self._edge is None:
            behind, width = 0, self._spans.width(*self._names, self._wanted)
            if width is None:
                return None
        else:
            behind = abs(self._at - self._edge)
            width = behind * WIDER
            if found:
                width = max(behind // 4, min(width, _long_enough(self._wanted - found, found, behind)))
        if (behind + width) * WHOLE > self._extent.newest - self._extent.oldest:
            return None
        edge = self._at if self._edge is None else self._edge
        if self._descending:
            return edge - width if self._low is None or edge - width > self._low else None
        return edge + width if self._high is None or edge + width < self._high else None

    def at(self, start: int) -> Filter:
        """The filter for the documents that began at one moment."""
        low, high = self._bounds
        if (low is not None and start < low) or (high is not None and start >= high):
            return FALSE
        return all_of([self._by_word, {START: DatetimeMS(start)}])

    def _between(self, low: int | None, high: int | None) -> Filter:
        since: Filter = TRUE if low is None else {START: {"$gte": DatetimeMS(low)}}
        until: Filter = TRUE if high is None else {START: {"$lt": DatetimeMS(high)}}
        if low is None and high is None:
            return self._where if asks_for_value(self._where, START) else all_of([self._where, {START: {"$ne": None}}])
        both = {START: {**since.get(START, {}), **until.get(START, {})}}
        if self._spans is None or not self._is_listed:
            return all_of([self._where, both])
        # Of an index over lists such a server passes over every place but for those before, or behind, one bound.
        whole = self._extent.newest - self._extent.oldest
        ways: list[tuple[float, list[Filter]]] = [(whole / BOTH_ENDS, [both])]
        if low is not None:
            ways.append((self._extent.newest - low, [since, looked_at(until)]))
        if high is not None:
            ways.append((high - self._extent.oldest, [until, looked_at(since)]))
        passed, bounds = min(ways, key=lambda way: way[0])
        return all_of([self._where if passed * WHOLE > whole else self._by_word, *bounds])


def split(where: Filter) -> tuple[Filter, int | None, int | None]:
    """A filter without its bounds of time, and these: from when on, and until when, in milliseconds since 1970."""
    rest: list[Filter] = []
    low: list[int] = []
    high: list[int] = []
    for part in parts(where):
        for path, wanted in part.items():
            if path == START and _is_bounds(wanted):
                low += [int(wanted[op]) + (op == "$gt") for op in ("$gt", "$gte") if op in wanted]
                high += [int(wanted[op]) + (op == "$lte") for op in ("$lt", "$lte") if op in wanted]
            elif path != "$and":
                rest.append({path: wanted})
    return all_of(rest), max(low, default=None), min(high, default=None)


def _is_bounds(wanted: Any) -> bool:
    """Whether what is asked of the start are bounds, next to which there are other milliseconds."""
    return isinstance(wanted, dict) and all(
        op in _COMPARISONS and isinstance(value, DatetimeMS) and abs(int(value)) < _LATEST
        for op, value in wanted.items()
    )


def looked_at(part: Filter) -> Filter:
    """A filter that each document is looked at for, since no server takes an index for what is denied."""
    return part if part == TRUE else {"$nor": [{"$nor": [part]}]}


def _long_enough(wanted: int, rows: int, ms: int) -> int:
    """How much time most probably has the rows that are wanted, where some rows were found within some time."""
    return math.ceil(ms / max(rows, 1) * (wanted + 3 * math.sqrt(wanted))) + 1


def _shape(part: Any) -> Any:
    """A filter without what it compares with, but for what it takes as equal."""
    if isinstance(part, dict):
        return {key: None if key in _COMPARISONS else _shape(value) for key, value in part.items()}
    return [_shape(each) for each in part] if isinstance(part, list) else part
