"""A scan as finds.

A scan's order and its place to go on (``after``) become filters and sorts that indexes serve. What lies in another
collection is joined, as ``joins`` beside this file says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pymongo
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError, WaitQueueTimeoutError

from xray_server.query.ast import Metric, Scan
from xray_server.stores.base import Row, ScanCut
from xray_server.stores.mongo import ids
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.extents import START
from xray_server.stores.mongo.filters import (
    FALSE,
    TRUE,
    Filter,
    all_of,
    asks_for_value,
    keys_named,
    names_key_of_run,
    names_keys,
    names_start,
)
from xray_server.stores.mongo.finds import Finder, Sort, sort_of
from xray_server.stores.mongo.forms import RUNS, Raw
from xray_server.stores.mongo.order import Key, later
from xray_server.stores.mongo.spans import Spans

now_s = time.monotonic


async def scan_rows(
    codec: Codec, database: AsyncDatabase[Raw], project: str, scan: Scan, spans: Spans | None = None
) -> list[Row]:
    """What ``Store.scan`` returns.

    Raises:
        ScanCut: The scan's deadline came first.
        StoreError: The store cannot sort by one of the keys.
    """
    if scan.deadline is None:
        return await (await Scanner.of(codec, database, project, scan, spans)).rows()
    scanner: Scanner | None = None
    left_s = scan.deadline - now_s()
    if left_s <= 0:
        raise ScanCut([])
    try:
        # The driver tells the server, which gives up at the same time; where it does not, the connection is closed.
        with pymongo.timeout(left_s):
            scanner = await Scanner.of(codec, database, project, scan, spans)
            return await scanner.rows()
    except PyMongoError as error:
        is_gone = isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError)
        if is_gone or not error.timeout:
            raise
        raise ScanCut([] if scanner is None else scanner.found) from None


class Scanner(Finder):
    """One scan on its way; made by :meth:`of`."""

    async def rows(self) -> list[Row]:
        """What the scan finds."""
        where = self._own_condition()
        if where != FALSE and self._room > 0:
            joined = await self._joins.filter()
            if joined != FALSE:
                await self._find(self._of_collection([where, joined]))
        return self.found

    async def _find(self, where: Filter) -> None:
        named = keys_named(where)
        if named is None or named > self._scan.limit or self._scan.after is not None:
            await self._ordered(where, self._keys, self._scan.after)
            return
        # They are few enough to be put in order here.
        rows = [row async for some in self._read(where, (), self._scan.limit) for row in some]
        self._add(_in_order(rows, self._keys, self._keys))

    def finds(self) -> list[tuple[str, Filter, Sort]]:
        """The collection, filter and sort of the finds that the scan may come down to, without joins; to be explained.

        For an order by a metric these are the documents with a value, and those without.
        """
        where = self._of_collection([self._own_condition()])
        first, rest = self._keys[0], self._keys[1:]
        if first.is_id:
            keys = TRUE if names_keys(where) else self._keys_of_project(1)
            return [(self._form.collection, all_of([where, keys]), sort_of([first]))]
        if isinstance(first.reference, Metric):
            with_value = self._of_collection([self._own_condition(), first.has_value()])
            return [
                (self._form.collection, with_value, sort_of([first])),
                (self._form.collection, all_of([where, first.has_none()]), sort_of(rest)),
            ]
        walked = first.is_walked or first.is_word
        return [(self._form.collection, where, sort_of([first] if walked else self._keys))]

    # --- orders that no index has whole -------------------------------------------------------------------------

    async def _ordered(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None) -> None:
        """Add the first documents in the order of some keys, behind the values of a row where these are given."""
        if not keys or self._room <= 0 or where == FALSE:
            return
        first = keys[0]
        if first.is_id:
            await self._by_id(where, first, after)
        elif first.is_word:
            await self._by_word(where, keys, after)
        elif first.is_walked or any(key.is_word for key in keys):
            await self._by_value(where, keys, after)
        else:
            beyond = TRUE if after is None else later(keys, after)
            await self._as_read(all_of([where, beyond]), keys)

    async def _as_read(self, where: Filter, keys: Sequence[Key]) -> None:
        async for rows in self._read(where, keys, self._room):
            self._add(rows)

    async def _by_id(self, where: Filter, key: Key, after: Sequence[Any] | None) -> None:
        """By the document's own id: those that are texts, and those that are bytes, are two ranges of keys."""
        if names_keys(where) or names_start(where):
            # These are few. The ranges would tempt a server to read all keys of the project.
            beyond = TRUE if after is None else key.beyond(after[0])
            await self._as_read(all_of([where, beyond]), [key])
            return
        for kind in (1, 0) if key.descending else (0, 1):
            of_kind = self._keys_of_project(kind)
            if after is not None:
                start = ids.key(self._known.project, after[0])
                if isinstance(start, bytes) is bool(kind):
                    of_kind = all_of([of_kind, {"_id": {"$lt" if key.descending else "$gt": start}}])
                elif isinstance(start, bytes) is not key.descending:
                    continue
            await self._as_read(all_of([where, of_kind]), [key])

    async def _by_word(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None) -> None:
        """By texts that are kept as numbers: the documents of one text after the other."""
        key, rest = keys[0], keys[1:]
        assert key.place is not None
        groups: list[tuple[str | None, Filter]] = [(None, self._compiler.absent(key.place))]
        groups += [(text, self._compiler.one_of(key.place, [text])) for text in sorted(self._known.texts(key.place))]
        if key.descending:
            groups.reverse()
        for text, of_text in groups:
            at = None
            if after is not None and text != after[0]:
                is_before = _rank(text) > _rank(after[0]) if key.descending else _rank(text) < _rank(after[0])
                if is_before:
                    continue
            elif after is not None:
                at = after[1:]
            await self._ordered(all_of([where, of_text]), rest, at)

    async def _by_value(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None) -> None:
        """By a value whose index does not have what shares a value in the order of the other keys.

        The documents come by value alone; those of the last value, which may be cut off, are found once more in their
        order. Documents without a value are a group of their own.
        """
        first, rest = keys[0], keys[1:]
        at_value = after is not None and after[0] is not None
        at_absent = after is not None and after[0] is None
        for has_value in (True, False) if first.descending else (False, True):
            if not has_value:
                if (at_value and not first.descending) or asks_for_value(where, first.path):
                    continue
                group = all_of([where, first.has_none()])
                await self._ordered(group, rest, after[1:] if at_absent and after is not None else None)
            elif not (at_absent and first.descending):
                await self._with_value(where, keys, after if at_value else None)

    async def _with_value(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None) -> None:
        first, rest = keys[0], keys[1:]
        if first.path == START and self._spans is not None and not self._lets_few_through(where):
            await self._by_spans(self._spans, where, keys, after)
            return
        beyond = TRUE if asks_for_value(where, first.path) else first.has_value()
        if after is not None:
            await self._ordered(all_of([where, first.same(after[0])]), rest, after[1:])
            beyond = first.beyond(after[0])
        await self._by_value_alone(all_of([where, beyond]), keys, lambda value: all_of([where, first.same(value)]))

    def _lets_few_through(self, where: Filter) -> bool:
        return names_keys(where) or (self._form is RUNS and names_key_of_run(where))

    async def _by_spans(self, spans: Spans, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None) -> None:
        """By start: the documents of one span of time after the other."""
        first, rest = keys[0], keys[1:]
        way = await spans.way(
            self._database,
            self._form.collection,
            self._known.project,
            where,
            descending=first.descending,
            after=None if after is None else after[0],
            wanted=self._room,
        )
        if after is not None:
            await self._ordered(way.at(after[0]), rest, after[1:])
        wanted = self._room
        while self._room > 0 and (span := way.next(wanted - self._room)) is not None:
            await self._by_value_alone(span, keys, way.at)
        found = wanted - self._room
        way.note(found, self.found[-1].sort_values[self._keys.index(first)] if found else None)

    async def _by_value_alone(self, where: Filter, keys: Sequence[Key], at: Callable[[Any], Filter]) -> None:
        """The first documents by a value, those of the last one found once more in the order of the other keys.

        Args:
            where: What they satisfy, which is to have a value too.
            keys: The order.
            at: What those of one value satisfy.
        """
        first, rest = keys[0], keys[1:]
        wanted = self._room
        if wanted <= 0:
            return
        place = self._keys.index(first)
        found: list[Row] = []
        try:
            # One more than is wanted shows whether the last value is cut off.
            async for rows in self._read(where, [first], wanted + 1):
                found += rows
        except PyMongoError:
            self._add(_in_order(_before_last_value(found, place), keys, self._keys))
            raise
        if len(found) <= wanted or not rest:
            self._add(_in_order(found[:wanted], keys, self._keys))
            return
        whole = found[:wanted]
        last = whole[-1].sort_values[place]
        if found[wanted].sort_values[place] != last:
            self._add(_in_order(whole, keys, self._keys))
            return
        self._add(_in_order(_before_last_value(whole, place), keys, self._keys))
        await self._ordered(at(last), rest, None)


def _before_last_value(rows: Sequence[Row], place: int) -> list[Row]:
    """Rows that came by a value, without those that share the last one, of which some may be missing."""
    return [row for row in rows if row.sort_values[place] != rows[-1].sort_values[place]]


def _in_order(rows: list[Row], keys: Sequence[Key], all_keys: Sequence[Key]) -> list[Row]:
    """Rows in the order of some of a scan's keys."""
    for key in reversed(keys):
        rows.sort(key=_value_at(all_keys.index(key), key), reverse=key.descending)
    return rows


def _value_at(place: int, key: Key) -> Callable[[Row], Any]:
    if key.place is not None and key.place.storage in ("own_id", "key", "id"):
        return lambda row: _id_rank(row.sort_values[place])
    return lambda row: _rank(row.sort_values[place])


def _rank(value: Any) -> tuple[bool, Any]:
    return value is not None, value


def _id_rank(value: str | None) -> tuple[int, Any]:
    """The order of ids as they are stored: texts before bytes."""
    stored = None if value is None else ids.id_value(value)
    return 0 if stored is None else 1 if isinstance(stored, str) else 2, stored or ""
